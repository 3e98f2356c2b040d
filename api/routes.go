package api

// routes is every endpoint.
func (s *Server) routes() {
	// System.
	s.handle("GET /_ping", (*request).ping)
	s.handle("GET /version", (*request).getVersion)
	s.handle("GET /info", (*request).info)
	s.handle("GET /events", (*request).getEvents)
	s.handle("GET /system/df", (*request).diskUsage)
	s.handle("POST /auth", (*request).auth)

	// Containers.
	s.handle("GET /containers/json", (*request).list)
	s.handle("POST /containers/create", (*request).create)
	s.handle("POST /containers/prune", (*request).pruneContainers)
	s.handle("GET /containers/{id}/json", (*request).inspect)
	s.handle("GET /containers/{id}/top", (*request).top)
	s.handle("GET /containers/{id}/logs", (*request).logs)
	s.handle("GET /containers/{id}/changes", (*request).changes)
	s.handle("GET /containers/{id}/export", (*request).export)
	s.handle("GET /containers/{id}/stats", (*request).stats)
	s.handle("POST /containers/{id}/resize", (*request).resize)
	s.handle("POST /containers/{id}/start", (*request).start)
	s.handle("POST /containers/{id}/stop", (*request).stop)
	s.handle("POST /containers/{id}/restart", (*request).restart)
	s.handle("POST /containers/{id}/kill", (*request).kill)
	s.handle("POST /containers/{id}/update", (*request).update)
	s.handle("POST /containers/{id}/rename", (*request).rename)
	s.handle("POST /containers/{id}/pause", (*request).pause)
	s.handle("POST /containers/{id}/unpause", (*request).unpause)
	s.handle("POST /containers/{id}/attach", (*request).attach)
	s.handle("GET /containers/{id}/attach/ws", (*request).attachSocket)
	s.handle("POST /containers/{id}/wait", (*request).wait)
	s.handle("DELETE /containers/{id}", (*request).remove)
	s.handle("GET /containers/{id}/archive", (*request).archive)
	s.stream("PUT /containers/{id}/archive", (*request).extract)
	s.handle("POST /containers/{id}/exec", (*request).execCreate)
	s.handle("POST /exec/{id}/start", (*request).execStart)
	s.handle("POST /exec/{id}/resize", (*request).execResize)
	s.handle("GET /exec/{id}/json", (*request).execInspect)

	// Images. Their names have slashes, so that what follows a name is parted from it in imageGet and imagePost.
	s.handle("GET /images/json", (*request).images)
	s.handle("GET /images/search", (*request).search)
	s.handle("GET /images/get", (*request).save)
	s.handle("GET /images/{rest...}", (*request).imageGet)
	s.stream("POST /images/create", (*request).pull)
	s.stream("POST /images/load", (*request).load)
	s.handle("POST /images/prune", (*request).pruneImages)
	s.handle("POST /images/{rest...}", (*request).imagePost)
	s.handle("DELETE /images/{name...}", (*request).removeImage)
	s.handle("POST /commit", (*request).commit)
	s.handle("GET /distribution/{rest...}", (*request).distribution)

	// Networks and volumes.
	s.handle("GET /networks", (*request).networks)
	s.handle("GET /networks/{$}", (*request).networks) // which old clients write with a slash
	s.handle("POST /networks/create", (*request).createNetwork)
	s.handle("POST /networks/prune", (*request).pruneNetworks)
	s.handle("GET /networks/{id}", (*request).inspectNetwork)
	s.handle("DELETE /networks/{id}", (*request).removeNetwork)
	s.handle("POST /networks/{id}/connect", (*request).connect)
	s.handle("POST /networks/{id}/disconnect", (*request).disconnect)
	s.handle("GET /volumes", (*request).volumes)
	s.handle("POST /volumes/create", (*request).createVolume)
	s.handle("POST /volumes/prune", (*request).pruneVolumes)
	s.handle("GET /volumes/{name}", (*request).inspectVolume)
	s.handle("PUT /volumes/{name}", noSwarm)
	s.handle("DELETE /volumes/{name}", (*request).removeVolume)

	// What needs the builder.
	for _, path := range []string{"POST /build", "POST /session", "POST /grpc", "POST /build/prune", "POST /build/cancel"} {
		s.stream(path, (*request).build)
	}

	// gRPC without /grpc: see nativeGRPC.
	s.stream("POST "+nativeGRPC+"/{service}/{method}", (*request).build)

	// What needs a swarm, or plugins.
	for _, path := range []string{"swarm", "nodes", "services", "tasks", "secrets", "configs"} {
		s.handle("GET /"+path, noSwarm)
		s.handle("GET /"+path+"/{rest...}", noSwarm)
		s.handle("DELETE /"+path+"/{rest...}", noSwarm)
		s.handle("POST /"+path+"/{rest...}", noSwarm)
	}
	s.handle("GET /plugins", (*request).plugins)
	s.handle("GET /plugins/{rest...}", noPlugin)
	s.handle("POST /plugins/{rest...}", noPlugin)
	s.handle("DELETE /plugins/{rest...}", noPlugin)
}
