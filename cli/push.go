package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"glassbox/image"
)

func (a *app) pushCommand() *cobra.Command {
	var p pull
	var all bool
	cmd := &cobra.Command{
		Use:   "push [OPTIONS] NAME[:TAG]",
		Short: "Give an image to a registry",
		Long: `Give an image to a registry: the one that its name begins with, or else Docker Hub.

Only layers that the registry lacks are sent. An image that was pulled keeps its digest as long as the registry that it came from has
its layers, or the one that it goes to.`,
		Example: `  glassbox tag app registry.lan:5000/team/app:1
  glassbox push registry.lan:5000/team/app:1
  glassbox push -a registry.lan:5000/team/app`,
		Args:              exactly(1),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := a.open()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			names := args
			if all {
				if names, err = e.Images().PushTags(args[0]); err != nil {
					return err
				}
			} else if ref, err := image.ParseRef(args[0]); err == nil && ref.Tag == "latest" && !p.quiet && !strings.HasSuffix(args[0], ":latest") {
				fmt.Fprintln(a.out, "Using default tag: latest")
			}
			p.progress = a.out
			for _, name := range names {
				o, done := p.options(a)
				got, err := e.Images().Push(ctx, name, o)
				done()
				if err != nil {
					return err
				}
				if p.quiet {
					fmt.Fprintln(a.out, got.Ref)
				}
			}
			return nil
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&all, "all-tags", "a", false, "All tags that the repository has here")
	fs.Var((*platformFlag)(&p.platform), "platform", "Platform that the image must be for (os[/arch[/variant]])")
	fs.BoolVarP(&p.quiet, "quiet", "q", false, "Print the name only")
	a.insecureFlag(fs, &p.insecure)
	return cmd
}

// login is one login.
type login struct {
	user, password string
	fromStdin      bool
	insecure       []string
}

// secret finds the user and the password: as they are given, or by asking.
func (l *login) secret(a *app, cmd *cobra.Command, registry string) (image.Credentials, error) {
	none := image.Credentials{}
	given := cmd.Flags().Changed("password")
	switch {
	case given && l.fromStdin:
		return none, &usageError{err: errors.New("--password and --password-stdin are mutually exclusive")}
	case l.fromStdin && l.user == "":
		return none, &usageError{err: errors.New("--password-stdin needs --username")}
	case l.fromStdin:
		// Tokens of clouds have some kilobytes; a wrong redirection may have no end.
		raw, err := io.ReadAll(io.LimitReader(a.in, 1<<20))
		if err != nil {
			return none, err
		}
		return image.Credentials{Username: l.user, Password: strings.TrimRight(string(raw), "\r\n")}, nil
	case given:
		fmt.Fprintln(a.err, "WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
		if l.user != "" {
			return image.Credentials{Username: l.user, Password: l.password}, nil
		}
	case l.user == "":
		if c := image.Stored(cmd.Context(), registry); c != nil {
			fmt.Fprintln(a.out, "Authenticating with existing credentials... [Username: "+printable(c.Username)+"]")
			return *c, nil
		}
	}
	// A password is asked for at a terminal only, whose echo can be turned off.
	if !a.isTerminal() {
		return none, errors.New("standard input is no terminal to ask for a name and a password\nhint: --username NAME --password-stdin < FILE")
	}
	c := image.Credentials{Username: l.user, Password: l.password}
	if c.Username == "" {
		fmt.Fprint(a.out, "Username: ")
		line, err := bufio.NewReader(a.in).ReadString('\n')
		if err != nil {
			return none, errors.New("no user name was given")
		}
		c.Username = strings.TrimSpace(line)
	}
	if c.Password == "" {
		fmt.Fprint(a.out, "Password: ")
		raw, err := term.ReadPassword(int(a.in.Fd()))
		fmt.Fprintln(a.out)
		if err != nil {
			return none, fmt.Errorf("the password can't be read: %w", err)
		}
		c.Password = string(raw)
	}
	return c, nil
}

func (a *app) loginCommand() *cobra.Command {
	var l login
	cmd := &cobra.Command{
		Use:   "login [OPTIONS] [SERVER]",
		Short: "Log in to a registry",
		Long: `Log in to a registry: Docker Hub, if none is named.

The credentials are kept where docker keeps them: by the credential helper that ~/.docker/config.json names, or in that file.`,
		Example: `  glassbox login -u anna registry.lan:5000
  glassbox login -u ci --password-stdin registry.lan:5000 < token`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			registry, note, err := image.LoginPlace(strings.Join(args, ""))
			if err != nil {
				return err
			}
			if note != "" {
				fmt.Fprintln(a.err, note)
			}
			c, err := l.secret(a, cmd, registry)
			if err != nil {
				return err
			}
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			res, err := image.Login(ctx, registry, c, image.PullOptions{InsecureRegistries: l.insecure})
			if err != nil {
				return err
			}
			if res.Helper == "" {
				fmt.Fprintf(a.err, "\nWARNING! Your credentials are stored unencrypted in '%s'.\n"+
					"Configure a credential helper to remove this warning: \"credsStore\" in that file.\n\n", res.File)
			}
			fmt.Fprintln(a.out, "Login Succeeded")
			return nil
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&l.user, "username", "u", "", "User's name")
	fs.StringVarP(&l.password, "password", "p", "", "Password; other users of this machine can see it: use --password-stdin")
	fs.BoolVar(&l.fromStdin, "password-stdin", false, "Read the password from standard input")
	a.insecureFlag(fs, &l.insecure)
	return cmd
}

func (a *app) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "logout [SERVER]",
		Short:   "Forget the credentials of a registry",
		Example: `  glassbox logout registry.lan:5000`,
		Args:    atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			registry, note, err := image.LoginPlace(strings.Join(args, ""))
			if err != nil {
				return err
			}
			if note != "" {
				fmt.Fprintln(a.err, note)
			}
			found, err := image.Logout(cmd.Context(), registry)
			if err != nil {
				return err
			}
			if found {
				fmt.Fprintln(a.out, "Removing login credentials for "+registry)
			} else {
				fmt.Fprintln(a.out, "Not logged in to "+registry)
			}
			return nil
		},
	}
}

func atMost(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return &usageError{fmt.Errorf("'%s' requires at most %d argument%s", cmd.CommandPath(), n, plural(n)), 1}
		}
		return nil
	}
}
