// Package tour is a course in the terminal on what containers are made of: twelve lessons of a few minutes each.
//
// Its one idea: a lesson is data, and what it shows is real. Each scene has a text, a small [plan.Plan] that package fork runs as
// it would run a container's, a question to answer before anything is shown, commands that look from inside and from outside, and
// a way to break it: the same plan with one step left out or changed. Every look knows what it must find, so that a run without
// a keyboard is a test of what the course says, on this machine.
//
// Nothing of the host is changed. What a scene makes carries the tour's name (a directory, cgroups, a variable in the environment
// of every process), is removed when the scene ends, and after a kill -9 by the next tour ([sweep]). Programs that devour memory or
// processes run below a cgroup of the tour's own whose limits stay when a lesson takes its limit away; the network of lesson
// 10 lies in network namespaces that stand for the host and for the world.
//
// It works offline: the container's files are programs of this machine (package image, FromHost). What an ordinary user may do
// runs in a user namespace; a lesson that can't run says what it needs.
//
// Start reading at [Lesson], then play.go; the lessons stand in lesson*.go.
package tour
