package main

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/moby/buildkit/util/resolver"
	"github.com/moby/buildkit/util/resolver/config"

	"glassbox/image"
)

// hub is the registry of names without a host.
const hub = "docker.io"

// registryHosts tells BuildKit what the administrator has said of registries (docs/images.md), which is read anew for each build. What
// BuildKit can't be told, rules for a part of a registry, is an error: such an image is pulled first, and is taken from the store then.
func registryHosts(host string) ([]docker.RegistryHost, error) {
	rules, err := image.ReadRegistries(image.RegistriesFile())
	if err != nil {
		return nil, err
	}
	if host == "index.docker.io" || host == "registry-1.docker.io" {
		host = hub
	}
	for _, r := range rules.Rules {
		if strings.HasPrefix(r.Prefix, host+"/") {
			return nil, fmt.Errorf("%s has a rule for %s, a part of a registry, which a build can't keep to: glassbox pull the image before it",
				rules.File, r.Prefix)
		}
	}
	asked, path := host, ""
	var c config.RegistryConfig
	if r := rules.Host(host); r != nil {
		c.Mirrors = r.Mirrors
		if r.Location != "" {
			asked, path, _ = strings.Cut(r.Location, "/")
		}
	}
	all := map[string]config.RegistryConfig{}
	for _, name := range append(c.Mirrors, asked) {
		name, _, _ = strings.Cut(name, "/")
		all[name] = proof(rules, name)
	}
	last := all[asked]
	last.Mirrors = c.Mirrors
	all[asked] = last
	hosts, err := resolver.NewRegistryConfig(all)(asked)
	if err == nil && path != "" {
		hosts[len(hosts)-1].Path += "/" + path
	}
	return hosts, err
}

// proof says how a host is to show who it is.
func proof(rules *image.Registries, host string) (c config.RegistryConfig) {
	for _, dir := range image.DefaultCertDirs() {
		c.TLSConfigDir = append(c.TLSConfigDir, filepath.Join(dir, host))
	}
	name := host
	if bare, _, err := net.SplitHostPort(host); err == nil && rules.Host(host) == nil {
		name = bare // a rule without a port is for all ports
	}
	r := rules.Host(name)
	if r == nil {
		return c
	}
	if r.Insecure {
		yes := true
		c.Insecure, c.PlainHTTP = &yes, &yes
	}
	if r.CA != "" {
		c.RootCAs = append(c.RootCAs, r.CA)
	}
	if r.Cert != "" {
		c.KeyPairs = append(c.KeyPairs, config.TLSKeyPair{Certificate: r.Cert, Key: r.Key})
	}
	return c
}
