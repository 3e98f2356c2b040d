package image

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
)

// hubKey is what Docker calls Docker Hub in its files.
const hubKey = "https://index.docker.io/v1/"

// authEntry is an entry of the credentials file. Each is read for itself, when it is needed: one that is broken is none of the others'
// business.
type authEntry struct {
	Auth          string `json:"auth"` // base64 of user:password
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// authConfig is Docker's config.json, and Podman's auth.json, as far as it is about credentials.
type authConfig struct {
	Auths       map[string]json.RawMessage `json:"auths"`
	CredsStore  string                     `json:"credsStore"`
	CredHelpers map[string]string          `json:"credHelpers"`
}

// authFile is the credentials file: Docker's, or else Podman's, where it is there.
func authFile() string {
	home, _ := os.UserHomeDir()
	docker := filepath.Join(home, ".docker", "config.json")
	if d := os.Getenv("DOCKER_CONFIG"); d != "" {
		docker = filepath.Join(d, "config.json")
	}
	places := []string{docker, os.Getenv("REGISTRY_AUTH_FILE")}
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
		places = append(places, filepath.Join(d, "containers", "auth.json"))
	}
	for _, p := range places {
		if _, err := os.Stat(p); p != "" && err == nil {
			return p
		}
	}
	return docker
}

// credentials finds those for a registry. What can't be read is told, and the registry is asked without: most images are for everybody,
// and whose are not says so.
func credentials(ctx context.Context, registry string) (authn.Authenticator, []string) {
	var told []string
	file := authFile()
	raw, err := os.ReadFile(file)
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			told = append(told, fmt.Sprintf("credentials can't be read: %v", err))
		}
		return authn.Anonymous, told
	}
	var conf authConfig
	if err := json.Unmarshal(raw, &conf); err != nil {
		return authn.Anonymous, []string{fmt.Sprintf("%s: credentials can't be read: %s", file, jsonWords(err))}
	}
	key := registry
	if registry == hub {
		key = hubKey
	}
	helper := conf.CredHelpers[registry]
	if helper == "" && registry == hub {
		helper = conf.CredHelpers[hubKey]
	}
	if helper == "" {
		helper = conf.CredsStore
	}
	if helper != "" {
		// A helper that fails is told of, and the file is asked: what is there may be enough.
		e, err := askHelper(ctx, helper, key)
		if err == nil && e != nil {
			return authenticator(e), told
		}
		if err != nil {
			told = append(told, fmt.Sprintf("%s: the credential helper %q: %v", file, helper, err))
		}
	}
	for name, entry := range conf.Auths {
		// Docker's keys are addresses, hosts, or the one of Hub with its path; what they have in common is the host.
		if authHost(name) != authHost(key) {
			continue
		}
		var e authEntry
		err := json.Unmarshal(entry, &e)
		if err == nil {
			err = e.decode()
		} else {
			err = errors.New(jsonWords(err))
		}
		if err != nil {
			told = append(told, fmt.Sprintf("%s: the entry for %s can't be read: %v", file, registry, err))
			continue
		}
		if e != (authEntry{}) { // with a helper Docker writes empty ones
			return authenticator(&e), told
		}
	}
	return authn.Anonymous, told
}

// authHost is the host of a key of the file, which may be an address.
func authHost(key string) string {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	host, _, _ := strings.Cut(key, "/")
	switch host {
	case "index.docker.io", "registry-1.docker.io":
		return hub
	}
	return host
}

func (e *authEntry) decode() error {
	if e.Auth == "" {
		return nil
	}
	raw, err := base64.StdEncoding.DecodeString(e.Auth)
	if err != nil {
		return errors.New(`"auth" is no base64`)
	}
	user, password, ok := strings.Cut(string(raw), ":")
	if !ok || user == "" {
		return errors.New(`"auth" is not user:password in base64`)
	}
	// As with Docker, which cuts NUL bytes off.
	e.Username, e.Password = user, strings.TrimRight(password, "\x00")
	return nil
}

func authenticator(e *authEntry) authn.Authenticator {
	return authn.FromConfig(authn.AuthConfig{
		Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken,
	})
}

// helperTime is how long a credential helper may take: it may ask a person for a password.
const helperTime = time.Minute

// askHelper runs docker-credential-NAME, which answers in JSON; nil if it knows nothing of the registry.
func askHelper(ctx context.Context, name, key string) (*authEntry, error) {
	program := "docker-credential-" + name
	// A slash in it would name any file as the program.
	if strings.ContainsAny(name, "/\x00") {
		return nil, errors.New("its name is no name of a program")
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, fmt.Errorf("there is no program %s in PATH; what needs no credentials works without", program)
	}
	ctx, cancel := context.WithTimeout(ctx, helperTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "get")
	cmd.Stdin = strings.NewReader(key)
	var out bytes.Buffer
	cmd.Stdout = &limitedWriter{&out, 1 << 20}
	// A grandchild may keep the pipe open after the helper's end.
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	words := strings.TrimSpace(out.String())
	if err != nil {
		// The one answer that all helpers of docker-credential-helpers give for a registry that they don't know.
		if strings.Contains(words, "credentials not found in native keychain") {
			return nil, nil
		}
		if ctx.Err() != nil {
			return nil, errors.New("it did not answer in time")
		}
		return nil, fmt.Errorf("it failed: %s", printable(words))
	}
	var answer struct{ Username, Secret string }
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
		return nil, errors.New("its answer makes no sense")
	}
	if answer.Username == "" && answer.Secret == "" {
		return nil, nil
	}
	// The helpers' protocol for a token in the place of a password.
	if answer.Username == "<token>" {
		return &authEntry{IdentityToken: answer.Secret}, nil
	}
	return &authEntry{Username: answer.Username, Password: answer.Secret}, nil
}

// limitedWriter takes n bytes and drops the rest.
type limitedWriter struct {
	w io.Writer
	n int
}

func (l *limitedWriter) Write(p []byte) (int, error) {
	k := min(len(p), l.n)
	l.n -= k
	if _, err := l.w.Write(p[:k]); err != nil {
		return 0, err
	}
	return len(p), nil
}
