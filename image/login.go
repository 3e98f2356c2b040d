package image

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sys/unix"
)

// Credentials are what a user has at a registry.
type Credentials struct{ Username, Password string }

// LoginResult says where credentials have been put.
type LoginResult struct {
	File   string // the file that has them, or names the helper
	Helper string // the credential helper that keeps them; empty: the file itself, unencrypted
}

// LoginServer is the key under which Docker keeps a registry's credentials; the empty string is Docker Hub.
func LoginServer(server string) (registry string, err error) {
	// People paste addresses.
	server = strings.TrimPrefix(strings.TrimPrefix(server, "https://"), "http://")
	server, _, _ = strings.Cut(server, "/")
	switch server {
	case "", "index.docker.io", "registry-1.docker.io":
		return hub, nil
	}
	if !validRegistry(server) {
		return "", &Error{
			Op: "login", Name: fmt.Sprintf("%.100q", server), Kind: ErrReference, Text: "it is no registry: the form is HOST[:PORT]",
		}
	}
	return server, nil
}

// LoginPlace is the registry that a login is for, and a sentence about it where it isn't the one that was named: settings may have another
// one stand in for it.
func LoginPlace(server string) (registry, note string, err error) {
	named, err := LoginServer(server)
	if err != nil {
		return "", "", err
	}
	rules, err := ReadRegistries(RegistriesFile())
	if err != nil {
		return "", "", err
	}
	if registry = rules.ServerFor(named); registry != named {
		note = fmt.Sprintf("%s stands in for %s (%s): its credentials are meant", registry, named, rules.File)
	}
	return registry, note, nil
}

// Auth is what a caller brings for a registry: a name and a password, or a token in their place.
type Auth struct {
	Credentials
	IdentityToken, RegistryToken string
}

// authenticator is how a registry is spoken to: with what the caller brings, or what is stored.
func (o *PullOptions) authenticator(ctx context.Context, registry string) (authn.Authenticator, []string) {
	switch a := o.Auth; {
	case a == nil:
		return credentials(ctx, registry)
	case *a == Auth{}:
		return authn.Anonymous, nil
	default:
		return authn.FromConfig(authn.AuthConfig{
			Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken,
		}), nil
	}
}

// CheckLogin asks the registry whether it knows the user, and keeps nothing. It returns the token that the registry gives in place of the
// password, or "".
func CheckLogin(ctx context.Context, registry string, c Credentials, o PullOptions) (token string, err error) {
	if err := c.check(registry); err != nil {
		return "", err
	}
	o = o.withDefaults()
	return tryLogin(ctx, registry, c, &o)
}

// check refuses credentials that can't be any.
func (c Credentials) check(registry string) error {
	// A colon would end the name where it is sent (RFC 7617), and a line's end the header.
	if c.Username == "" || strings.ContainsAny(c.Username, ":\x00\n") {
		return &Error{
			Op: "login", Name: registry, Kind: ErrReference, Text: "the user's name is empty, or has a colon or a line's end in it",
		}
	}
	if c.Password == "" || strings.ContainsRune(c.Password, 0) {
		return &Error{Op: "login", Name: registry, Kind: ErrReference, Text: "the password is empty"}
	}
	return nil
}

func loginKey(registry string) string {
	if registry == hub {
		return hubKey
	}
	return registry
}

// Stored finds the credentials that are there for a registry; nil if there are none.
func Stored(ctx context.Context, registry string) *Credentials {
	auth, _ := credentials(ctx, registry)
	return userOf(auth)
}

// userOf is the name and password of an authenticator; nil if it has none.
func userOf(auth authn.Authenticator) *Credentials {
	conf, err := auth.Authorization()
	if err != nil || conf.Username == "" || conf.Password == "" {
		return nil
	}
	return &Credentials{conf.Username, conf.Password}
}

// Login asks the registry whether it knows the user, and keeps the credentials, as docker login does: by the helper that the credentials
// file names, or in the file. A registry that gives out identity tokens gets the password this once: its token is kept.
func Login(ctx context.Context, registry string, c Credentials, o PullOptions) (*LoginResult, error) {
	if err := c.check(registry); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	token, err := tryLogin(ctx, registry, c, &o)
	if err != nil {
		return nil, err
	}
	e := authEntry{Username: c.Username, Password: c.Password}
	if token != "" {
		e = authEntry{Username: c.Username, IdentityToken: token}
	}
	return storeLogin(ctx, registry, e)
}

// tryLogin proves the credentials, and returns an identity token where the registry's token server gives one (docker's
// docs/spec/auth/oauth).
func tryLogin(ctx context.Context, registry string, cred Credentials, o *PullOptions) (string, error) {
	rules, err := o.rules()
	if err != nil {
		return "", err
	}
	registry = rules.ServerFor(registry)
	c := &client{op: "login", ref: Ref{Registry: registry}, host: registry, scheme: "https", opts: o}
	if err := c.prepare(ctx); err != nil {
		return "", err
	}
	defer c.close()
	opts := []name.Option{name.WeakValidation}
	if c.scheme == "http" {
		opts = append(opts, name.Insecure)
	}
	reg, err := name.NewRegistry(c.host, opts...)
	if err != nil {
		return "", &Error{Op: "login", Name: registry, Kind: ErrReference, Err: err}
	}
	challenge, err := transport.Ping(ctx, reg, c.guard)
	if err != nil {
		return "", c.explain(err)
	}
	// An OAuth server may give a token for the password. One that gives none has not said no: the password itself is tried
	// then.
	if strings.EqualFold(challenge.Scheme, "bearer") {
		if token := c.identityToken(ctx, challenge.Parameters, cred); token != "" {
			return token, nil
		}
	}
	auth := authn.FromConfig(authn.AuthConfig{Username: cred.Username, Password: cred.Password})
	rt, err := transport.NewWithContext(ctx, reg, auth, c.guard, nil)
	if err != nil {
		return "", c.explain(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.scheme+"://"+c.host+"/v2/", nil)
	if err != nil {
		return "", err
	}
	resp, err := (&http.Client{Transport: rt}).Do(req)
	if err != nil {
		return "", c.explain(err)
	}
	defer resp.Body.Close()
	// Both are used for a wrong password.
	if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
		return "", &Error{Op: "login", Name: registry, Kind: ErrUnauthorized, Text: "incorrect username or password"}
	}
	if resp.StatusCode != http.StatusOK {
		return "", c.status(resp, "")
	}
	return "", nil
}

// identityToken asks a token server for a token that stands for the password; "" if it gives none.
func (c *client) identityToken(ctx context.Context, p map[string]string, cred Credentials) string {
	form := url.Values{
		// offline asks for a token that lasts, in the words of Docker's own request.
		"grant_type": {"password"}, "service": {p["service"]}, "client_id": {"glassbox"}, "access_type": {"offline"},
		"username": {cred.Username}, "password": {cred.Password},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p["realm"], strings.NewReader(form.Encode()))
	if err != nil {
		return ""
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := (&http.Client{Transport: c.guard}).Do(req)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	var answer struct {
		RefreshToken string `json:"refresh_token"`
	}
	if resp.StatusCode != http.StatusOK || json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&answer) != nil {
		return ""
	}
	return answer.RefreshToken
}

// storeLogin keeps an entry, as Docker's command line does.
func storeLogin(ctx context.Context, registry string, e authEntry) (*LoginResult, error) {
	file := authFile()
	res := &LoginResult{File: file}
	return res, editAuth(file, func(conf map[string]json.RawMessage, auths map[string]json.RawMessage) error {
		helper, err := helperOf(conf, registry)
		if err != nil {
			return err
		}
		key := loginKey(registry)
		if helper != "" {
			res.Helper = helper
			secret, user := e.Password, e.Username
			if e.IdentityToken != "" {
				secret, user = e.IdentityToken, "<token>"
			}
			raw, err := json.Marshal(map[string]string{"ServerURL": key, "Username": user, "Secret": secret})
			if err != nil {
				return err
			}
			if _, err := runHelper(ctx, helper, "store", raw); err != nil {
				return &Error{Op: "login", Name: registry, Text: fmt.Sprintf("the credential helper %q, which %s names, %v", helper, file, err)}
			}
			auths[key] = json.RawMessage("{}") // Docker writes an empty one, too
			return nil
		}
		entry := map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(e.Username + ":" + e.Password))}
		if e.IdentityToken != "" {
			entry["identitytoken"] = e.IdentityToken
		}
		raw, err := json.Marshal(entry)
		auths[key] = raw
		return err
	})
}

// Logout forgets a registry's credentials, and reports whether there were any.
func Logout(ctx context.Context, registry string) (bool, error) {
	file, found := authFile(), false
	if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	err := editAuth(file, func(conf map[string]json.RawMessage, auths map[string]json.RawMessage) error {
		for key := range maps.Clone(auths) {
			if authHost(key) == authHost(loginKey(registry)) {
				delete(auths, key)
				found = true
			}
		}
		helper, err := helperOf(conf, registry)
		if err != nil || helper == "" {
			return err
		}
		if e, err := askHelper(ctx, helper, loginKey(registry)); err == nil && e != nil {
			found = true
		}
		if _, err := runHelper(ctx, helper, "erase", []byte(loginKey(registry))); err != nil {
			return &Error{Op: "logout", Name: registry, Text: fmt.Sprintf("the credential helper %q, which %s names, %v", helper, file, err)}
		}
		return nil
	})
	return found, err
}

func helperOf(conf map[string]json.RawMessage, registry string) (string, error) {
	var helpers map[string]string
	var store string
	for key, to := range map[string]any{"credHelpers": &helpers, "credsStore": &store} {
		if raw, ok := conf[key]; ok {
			if err := json.Unmarshal(raw, to); err != nil {
				return "", fmt.Errorf("%s: %s", key, jsonWords(err))
			}
		}
	}
	if h := helpers[registry]; h != "" {
		return h, nil
	}
	if h := helpers[loginKey(registry)]; h != "" {
		return h, nil
	}
	return store, nil
}

// runHelper runs docker-credential-NAME with a word and an input.
func runHelper(ctx context.Context, name, word string, in []byte) ([]byte, error) {
	if strings.ContainsAny(name, "/\x00") {
		return nil, errors.New("has no name of a program")
	}
	program, err := exec.LookPath("docker-credential-" + name)
	if err != nil {
		return nil, errors.New("is not in PATH")
	}
	ctx, cancel := context.WithTimeout(ctx, helperTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, word)
	cmd.Stdin = bytes.NewReader(in)
	var out bytes.Buffer
	cmd.Stdout = &limitedWriter{&out, 1 << 20}
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("failed: %s", printable(strings.TrimSpace(out.String())))
	}
	return out.Bytes(), nil
}

// editAuth changes the credentials file. What else is in it stays as it is.
func editAuth(file string, edit func(conf, auths map[string]json.RawMessage) error) error {
	if real, err := filepath.EvalSymlinks(file); err == nil {
		file = real // a file that is a link, to somewhere under version control perhaps, stays one
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	// Two logins at a time: the later one sees what the earlier one wrote.
	unlock, err := flock(filepath.Join(filepath.Dir(file), ".glassbox.lock"), unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock()
	conf := map[string]json.RawMessage{}
	raw, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	auths := map[string]json.RawMessage{}
	if len(bytes.TrimSpace(raw)) > 0 {
		err := json.Unmarshal(raw, &conf)
		if err == nil && conf["auths"] != nil {
			err = json.Unmarshal(conf["auths"], &auths)
		}
		if err != nil {
			return &Error{Op: "credentials", Name: file, Text: "the file can't be read: " + jsonWords(err), Hint: "mend it, or remove it"}
		}
	}
	before := fmt.Sprint(slices.Sorted(maps.Keys(auths)), string(conf["auths"]))
	if err := edit(conf, auths); err != nil {
		return err
	}
	list, err := json.Marshal(auths)
	if err != nil {
		return err
	}
	conf["auths"] = list
	// Nothing is written where nothing has changed: the file may be read-only, and others watch it.
	if before == fmt.Sprint(slices.Sorted(maps.Keys(auths)), string(list)) && len(raw) > 0 {
		return nil
	}
	out, err := json.MarshalIndent(conf, "", "\t")
	if err != nil {
		return err
	}
	return writeFile(file, out) // mode 0600, as CreateTemp has it
}
