package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	mobyimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/registry"

	"glassbox/engine"
	"glassbox/image"
)

// platform reads the parameter of that name: os/arch[/variant], or the JSON of the OCI specification.
func (q *request) platform() (image.Platform, error) {
	text := q.query("platform")
	if strings.HasPrefix(text, "{") {
		var p struct{ OS, Architecture, Variant string }
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			return image.Platform{}, invalid("invalid platform: %v", err)
		}
		text = strings.TrimRight(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
	}
	p, err := image.ParsePlatform(text)
	if errors.Is(err, image.ErrUnknown) {
		err = fmt.Errorf("unknown operating system or architecture: %w", err) // Docker's words
	}
	return p, err
}

// images answers GET /images/json.
func (q *request) images() error {
	filters, err := q.filters()
	if err != nil {
		return err
	}
	if name := q.query("filter"); name != "" { // until 1.41
		filters = append(filters, "reference="+name)
	}
	list, err := q.s.engine.ListImages(q.Context(), filters)
	if err != nil {
		return err
	}
	shared := map[string]int64{}
	if q.bool("shared-size") {
		use, err := q.s.engine.DiskUsage(q.Context())
		if err != nil {
			return err
		}
		for _, i := range use.Images {
			shared[i.ID] = i.Shared
		}
	}
	var users map[string]int64
	// Since 1.51 without being asked for (moby/api, docs/CHANGELOG.md). Before, -1 says that nobody has counted, which
	// saves reading all containers.
	if q.version >= 51 {
		if users, err = q.s.imageUsers(q.Context()); err != nil {
			return err
		}
	}
	out := []any{}
	for _, i := range list {
		if q.s.policy != nil && !q.s.policy.AllowsImage(i.RepoTags...) {
			continue
		}
		i.SharedSize, i.Containers = -1, -1
		if n, ok := shared[i.ID]; ok {
			i.SharedSize = n
		}
		if users != nil {
			i.Containers = users[i.ID]
		}
		out = append(out, q.version.imageSummary(i))
	}
	return q.json(out)
}

// imageUsers counts the containers made from each image.
func (s *Server) imageUsers(ctx context.Context) (map[string]int64, error) {
	list, err := s.engine.List(ctx, engine.ListOptions{All: true})
	users := map[string]int64{}
	for _, c := range list {
		users[c.ImageID]++
	}
	return users, err
}

// split parts NAME/VERB, of a path in which the name may have slashes.
func split(rest string) (name, verb string) {
	i := strings.LastIndexByte(rest, '/')
	if i < 0 {
		return "", rest
	}
	return rest[:i], rest[i+1:]
}

var errNoPage = &statusError{http.StatusNotFound, "page not found"}

// imageGet answers GET /images/{name}/json, history and get.
func (q *request) imageGet() error {
	name, verb := split(q.PathValue("rest"))
	if q.s.policy != nil && name != "" {
		if err := q.permitImage(name, verb); err != nil {
			return err
		}
	}
	switch {
	case name == "":
		return errNoPage
	case verb == "json":
		return q.inspectImage(name)
	case verb == "history":
		return q.history(name)
	case verb == "get":
		return q.saveImages([]string{name})
	case verb == "attestations":
		if _, err := q.s.engine.Images().Resolve(name); err != nil {
			return err
		}
		return q.json([]struct{}{}) // there are none: only a platform's manifest is kept
	}
	return errNoPage
}

// imagePost answers POST /images/{name}/tag and push.
func (q *request) imagePost() error {
	name, verb := split(q.PathValue("rest"))
	switch {
	case name == "":
		return errNoPage
	case verb == "tag":
		return q.tag(name)
	case verb == "push":
		return q.push(name)
	}
	return errNoPage
}

func (q *request) inspectImage(name string) error {
	p, err := q.platform()
	if err != nil {
		return err
	}
	i, err := q.s.engine.InspectImage(q.Context(), name, p)
	if err != nil {
		return err
	}
	return q.json(q.version.image(i, q.bool("manifests")))
}

func (q *request) history(name string) error {
	p, err := q.platform()
	if err != nil {
		return err
	}
	i, err := q.s.engine.Images().ResolveFor(name, p)
	if err != nil {
		return err
	}
	out := []mobyimage.HistoryResponseItem{}
	for _, h := range i.History() {
		item := mobyimage.HistoryResponseItem{Comment: h.Comment, CreatedBy: h.CreatedBy, ID: h.ID, Size: h.Size, Tags: h.Tags}
		if !h.Created.IsZero() {
			item.Created = h.Created.Unix()
		}
		out = append(out, item)
	}
	return q.json(out)
}

// named joins the parameters repo and tag; empty if there is none.
func (q *request) named(repo string) (string, error) {
	if repo == "" {
		return "", nil
	}
	name := repo
	if tag := q.query("tag"); tag != "" {
		sep := ":"
		if strings.Contains(tag, ":") {
			sep = "@"
		}
		name += sep + tag
	}
	ref, err := image.ParseRef(name)
	if err != nil {
		return "", err
	}
	return ref.Familiar(), nil
}

func (q *request) tag(name string) error {
	target, err := q.named(q.query("repo"))
	if err == nil && (target == "" || strings.Contains(target, "@")) {
		err = invalid("refusing to create a tag without a name, or with a digest reference")
	}
	if err != nil {
		return err
	}
	if err := q.s.engine.Images().Tag(name, target); err != nil {
		return err
	}
	q.w.WriteHeader(http.StatusCreated)
	return nil
}

// removeImage answers DELETE /images/{name}.
func (q *request) removeImage() error {
	users := func(id string) []string { return q.s.engine.ImageUsers(q.Context(), id) }
	gone, err := q.s.engine.Images().Remove(q.PathValue("name"), image.RemoveOptions{Force: q.bool("force"), InUse: users})
	if err != nil {
		return err
	}
	return q.json(deleted(gone.Untagged, gone.Deleted))
}

func deleted(untagged, ids []string) []mobyimage.DeleteResponse {
	out := []mobyimage.DeleteResponse{}
	for _, n := range untagged {
		out = append(out, mobyimage.DeleteResponse{Untagged: n})
	}
	for _, n := range ids {
		out = append(out, mobyimage.DeleteResponse{Deleted: n})
	}
	return out
}

// pruneImages answers POST /images/prune.
func (q *request) pruneImages() error {
	filters, err := q.filters()
	if err != nil {
		return err
	}
	var p engine.Pruned
	if err := q.s.engine.PruneImages(q.Context(), false, filters, &p); err != nil {
		return err
	}
	return q.json(mobyimage.PruneReport{ImagesDeleted: deleted(p.Untagged, p.Images), SpaceReclaimed: uint64(p.Freed)})
}

// registryAuth reads the header with the caller's credentials. Without it nothing is sent to the registry: those that are stored for the
// server's user are not the caller's.
func (q *request) registryAuth() (*image.Auth, error) {
	text := q.Header.Get(registry.AuthHeader)
	if text == "" {
		return &image.Auth{}, nil
	}
	// Clients differ: the alphabet of URLs, with padding or without, or the common one.
	raw, err := base64.URLEncoding.DecodeString(text)
	if err != nil {
		raw, err = base64.RawURLEncoding.DecodeString(text)
	}
	if err != nil {
		raw, err = base64.StdEncoding.DecodeString(text)
	}
	var a registry.AuthConfig
	if err == nil && len(raw) > 0 {
		err = json.Unmarshal(raw, &a)
	}
	if err != nil {
		return nil, invalid("invalid %s header: %v", registry.AuthHeader, err)
	}
	// The form of ~/.docker/config.json.
	if a.Username == "" && a.Auth != "" {
		if both, err := base64.StdEncoding.DecodeString(a.Auth); err == nil {
			a.Username, a.Password, _ = strings.Cut(string(both), ":")
		}
	}
	return &image.Auth{
		Credentials:   image.Credentials{Username: a.Username, Password: a.Password},
		IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken,
	}, nil
}

// pull answers POST /images/create: a pull, or with fromSrc an import.
func (q *request) pull() error {
	if src := q.query("fromSrc"); src != "" {
		if q.s.policy != nil {
			return q.forbid("images may be pulled, and not be made of archives")
		}
		return q.importImage(src)
	}
	from := q.query("fromImage")
	if from == "" {
		return invalid("invalid reference: want fromImage or fromSrc")
	}
	name, err := q.named(from)
	if err != nil {
		return err
	}
	if p := q.s.policy; p != nil && !p.AllowsImage(name) {
		return q.forbid(fmt.Sprintf("image %s: allowed are %s", name, strings.Join(p.Images, ", ")))
	}
	p, err := q.platform()
	if err != nil {
		return err
	}
	auth, err := q.registryAuth()
	if err != nil {
		return err
	}
	out := &progress{q: q}
	_, err = q.s.engine.Images().Pull(q.Context(), name, image.PullOptions{
		Platform: p, InsecureRegistries: q.s.insecure, Progress: out.event, Auth: auth,
	})
	return out.fail(err)
}

func (q *request) push(name string) error {
	full, err := q.named(name)
	if err != nil {
		return err
	}
	auth, err := q.registryAuth()
	if err != nil {
		return err
	}
	p, err := q.platform()
	if err != nil {
		return err
	}
	names := []string{full}
	// A name without a tag means all of its tags: Docker's command line always sends one, unless --all-tags is given.
	if ref, err := image.ParseRef(name); err == nil && q.query("tag") == "" && ref.Tag == "latest" && !strings.HasSuffix(name, ":latest") {
		if names, err = q.s.engine.Images().PushTags(name); err != nil {
			return err
		}
	}
	out := &progress{q: q, push: true}
	for _, n := range names {
		o := image.PullOptions{Platform: p, InsecureRegistries: q.s.insecure, Progress: out.event, Auth: auth}
		if _, err := q.s.engine.Images().Push(q.Context(), n, o); err != nil {
			return out.fail(err)
		}
	}
	return nil
}

func (q *request) importImage(src string) error {
	name, err := q.named(q.query("repo"))
	if err != nil {
		return err
	}
	p, err := q.platform()
	if err != nil {
		return err
	}
	var from io.Reader = q.Body
	if src != "-" {
		body, err := image.Fetch(q.Context(), src)
		if err != nil {
			return err
		}
		defer body.Close()
		from = body
	}
	o := image.ImportOptions{Name: name, Changes: q.URL.Query()["changes"], Message: q.query("message"), Platform: p}
	i, err := q.s.engine.Images().Import(q.Context(), from, o)
	if err != nil {
		return badArchive(err)
	}
	out := &progress{q: q}
	out.tell(step{Status: i.ID})
	return nil
}

// save answers GET /images/get.
func (q *request) save() error {
	names := q.URL.Query()["names"]
	if len(names) == 0 {
		return invalid("no images: want the parameter names")
	}
	return q.saveImages(names)
}

func (q *request) saveImages(names []string) error {
	p, err := q.platform()
	if err != nil {
		return err
	}
	q.w.Header().Set("Content-Type", "application/x-tar")
	return q.s.engine.Images().Save(q.Context(), q.w, names, image.SaveOptions{Platform: p})
}

// load answers POST /images/load.
func (q *request) load() error {
	p, err := q.platform()
	if err != nil {
		return err
	}
	// Load wants a file: an archive may need to be read twice, and a pipe is kept on disk by it.
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	// It ends when Load has closed the reading end, or with the request's body.
	go func() {
		io.Copy(w, q.Body)
		w.Close()
	}()
	out := &progress{q: q}
	done, err := q.s.engine.Images().Load(q.Context(), r, image.LoadOptions{Platform: p})
	for _, l := range done {
		for _, n := range l.Names {
			out.tell(step{Stream: "Loaded image: " + n + "\n"})
		}
		if len(l.Names) == 0 {
			out.tell(step{Stream: "Loaded image ID: " + l.Image.ID + "\n"})
		}
	}
	return out.fail(badArchive(err))
}

// badArchive is an error about an archive that a client has sent: one that ends early is the client's fault.
func badArchive(err error) error {
	if errors.Is(err, image.ErrTruncated) {
		return &statusError{http.StatusBadRequest, message(err)}
	}
	return err
}

// search answers GET /images/search.
func (q *request) search() error {
	limit, err := q.number("limit", 25)
	if err != nil {
		return err
	}
	if limit == 0 {
		limit = 25
	}
	if limit < 1 || limit > 100 {
		return invalid("Limit %d is outside the range of [1, 100]", limit)
	}
	filters, err := q.filters()
	if err != nil {
		return err
	}
	keep, err := image.SearchFilter(filters)
	if err != nil {
		return invalid("%v", err)
	}
	auth, err := q.registryAuth()
	if err != nil {
		return err
	}
	list, err := image.Search(q.Context(), q.query("term"), limit, image.PullOptions{InsecureRegistries: q.s.insecure, Auth: auth})
	if err != nil {
		return err
	}
	out := []registry.SearchResult{}
	for _, r := range list {
		if keep(r) {
			out = append(out, registry.SearchResult{StarCount: r.Stars, IsOfficial: r.Official, Name: r.Name, Description: r.Description})
		}
	}
	return q.json(out)
}

// distribution answers GET /distribution/{name}/json.
func (q *request) distribution() error {
	name, verb := split(q.PathValue("rest"))
	if name == "" || verb != "json" {
		return errNoPage
	}
	auth, err := q.registryAuth()
	if err != nil {
		return err
	}
	o := image.PullOptions{InsecureRegistries: q.s.insecure, Auth: auth}
	d, err := image.RemoteDescriptor(q.Context(), name, o)
	if err != nil {
		return err
	}
	return q.json(registry.DistributionInspect{Descriptor: d.Descriptor, Platforms: d.Platforms})
}

// quoted writes a word of a Dockerfile's instruction in which nothing is expanded.
func quoted(s string) string {
	return strconv.Quote(strings.NewReplacer("$", `\$`).Replace(s))
}
