// Package network connects containers.
package network
