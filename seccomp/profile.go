package seccomp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// file is a profile as people write it: the runtime-spec's form with Docker's additions (archMap, includes, excludes,
// name, comment) and Podman's (errno and defaultErrno, the errno as a name beside the number).
type file struct {
	DefaultAction    specs.LinuxSeccompAction `json:"defaultAction"`
	DefaultErrnoRet  *uint                    `json:"defaultErrnoRet"`
	DefaultErrno     string                   `json:"defaultErrno"`
	Architectures    []specs.Arch             `json:"architectures"`
	ArchMap          []fileArch               `json:"archMap"`
	Flags            []specs.LinuxSeccompFlag `json:"flags"`
	ListenerPath     string                   `json:"listenerPath"`
	ListenerMetadata string                   `json:"listenerMetadata"`
	Syscalls         []fileRule               `json:"syscalls"`
}

type fileArch struct {
	Architecture     specs.Arch   `json:"architecture"`
	SubArchitectures []specs.Arch `json:"subArchitectures"`
}

type fileRule struct {
	Name     string                   `json:"name"`
	Names    []string                 `json:"names"`
	Action   specs.LinuxSeccompAction `json:"action"`
	ErrnoRet *uint                    `json:"errnoRet"`
	Errno    string                   `json:"errno"`
	Args     []specs.LinuxSeccompArg  `json:"args"`
	Comment  string                   `json:"comment"`
	Includes *fileFilter              `json:"includes"`
	Excludes *fileFilter              `json:"excludes"`
}

// fileFilter is a condition on the container and its host.
type fileFilter struct {
	Caps      []string `json:"caps"`
	Arches    []string `json:"arches"`
	MinKernel string   `json:"minKernel"`
}

// ParseProfile reads a profile in Docker's format or in the plain form of the runtime-spec and returns what is left of
// it for one container: the architectures of its machine's archMap entry, and the rules whose includes and excludes fit.
// As in Docker, a rule needs all of its includes (every capability, one of the arches, at least that kernel) and is
// dropped by any of its excludes.
//
// It is stricter than Docker: unknown fields, actions, operators, architectures and impossible values are errors, also
// in rules that do not apply here, and a profile without defaultAction is an error where Docker takes it for "no seccomp".
func ParseProfile(data []byte, o DefaultOptions) (*specs.LinuxSeccomp, error) {
	var in file
	if err := decode(data, &in); err != nil {
		return nil, err
	}
	if in.DefaultAction == "" {
		return nil, wrong("/defaultAction", "missing")
	}
	errnoRet, err := errnoOf(in.DefaultErrnoRet, in.DefaultErrno)
	if err != nil {
		return nil, At("/defaultErrno", err)
	}
	if _, err := verdict(in.DefaultAction, errnoRet); err != nil {
		return nil, defaultError(err)
	}
	p := &specs.LinuxSeccomp{
		DefaultAction:    in.DefaultAction,
		DefaultErrnoRet:  errnoRet,
		Flags:            in.Flags,
		ListenerPath:     in.ListenerPath,
		ListenerMetadata: in.ListenerMetadata,
	}
	if p.Architectures, err = in.architectures(o.Arch); err != nil {
		return nil, err
	}
	for i := range in.Syscalls {
		r := &in.Syscalls[i]
		rule, err := r.rule()
		if err != nil {
			return nil, ruleError(i, r.first(), err)
		}
		wanted, err := r.Includes.all(o)
		if err != nil {
			return nil, ruleError(i, r.first(), At("/includes", err))
		}
		unwanted, err := r.Excludes.any(o)
		if err != nil {
			return nil, ruleError(i, r.first(), At("/excludes", err))
		}
		if wanted && !unwanted {
			p.Syscalls = append(p.Syscalls, rule)
		}
	}
	return p, nil
}

func decode(data []byte, in *file) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(in); err != nil {
		var wrong *json.UnmarshalTypeError
		var syntax *json.SyntaxError
		switch {
		case errors.As(err, &wrong) && wrong.Field != "":
			return &Error{
				"/" + strings.ReplaceAll(wrong.Field, ".", "/"),
				fmt.Sprintf("%s where %s is wanted (byte %d)", wrong.Value, wrong.Type, wrong.Offset),
			}
		case errors.As(err, &wrong):
			return fmt.Errorf("a profile is a JSON object, this is %s", wrong.Value)
		case errors.As(err, &syntax):
			return fmt.Errorf("not JSON at byte %d: %w", syntax.Offset, err)
		case errors.Is(err, io.EOF):
			return errors.New("the profile is empty")
		case errors.Is(err, io.ErrUnexpectedEOF):
			return errors.New("the profile is cut short")
		}
		return errors.New(strings.TrimPrefix(err.Error(), "json: ")) // unknown field "…"
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("more text after the profile, at byte %d", d.InputOffset())
	}
	return nil
}

// errnoOf joins the number and Podman's name of an errno; the number decides.
func errnoOf(number *uint, name string) (*uint, error) {
	if number != nil || name == "" {
		return number, nil
	}
	for e := range uint(134) {
		if errnoName(uint32(e)) == name {
			return &e, nil
		}
	}
	return nil, wrong("", "unknown name %q, give the number in errnoRet", name)
}

func (in *file) architectures(goarch string) ([]specs.Arch, error) {
	if len(in.Architectures) > 0 && len(in.ArchMap) > 0 {
		return nil, wrong("/archMap", "there are architectures, too: only one of the two can be given")
	}
	for i, name := range in.Architectures {
		if _, known := archOf(string(name)); !known {
			return nil, wrong(fmt.Sprintf("/architectures/%d", i), "unknown architecture %q", name)
		}
	}
	abis := machine(goarch)
	var found []specs.Arch
	for i, m := range in.ArchMap {
		main, known := archOf(string(m.Architecture))
		if !known {
			return nil, wrong(fmt.Sprintf("/archMap/%d/architecture", i), "unknown architecture %q", m.Architecture)
		}
		for j, sub := range m.SubArchitectures {
			if _, known := archOf(string(sub)); !known {
				return nil, wrong(fmt.Sprintf("/archMap/%d/subArchitectures/%d", i, j), "unknown architecture %q", sub)
			}
		}
		if found == nil && len(abis) > 0 && main == abis[0] {
			found = append([]specs.Arch{m.Architecture}, m.SubArchitectures...)
		}
	}
	if found != nil {
		return found, nil
	}
	return in.Architectures, nil
}

// first returns the name of the rule's first call.
func (r *fileRule) first() string {
	if r.Name == "" && len(r.Names) > 0 {
		return r.Names[0]
	}
	return r.Name
}

// rule checks an entry and returns its part that the runtime-spec knows.
func (r *fileRule) rule() (specs.LinuxSyscall, error) {
	if r.Name != "" && len(r.Names) > 0 {
		return specs.LinuxSyscall{}, wrong("/name", "there are names, too: only one of the two can be given")
	}
	names := r.Names
	if r.Name != "" {
		names = []string{r.Name}
	}
	if len(names) == 0 {
		return specs.LinuxSyscall{}, wrong("/names", "missing: a rule is for one call or more")
	}
	if i := slices.Index(names, ""); i >= 0 {
		return specs.LinuxSyscall{}, wrong(fmt.Sprintf("/names/%d", i), "an empty name")
	}
	errnoRet, err := errnoOf(r.ErrnoRet, r.Errno)
	if err != nil {
		return specs.LinuxSyscall{}, At("/errno", err)
	}
	if _, err := verdict(r.Action, errnoRet); err != nil {
		return specs.LinuxSyscall{}, err
	}
	if _, err := comparisons(r.Args); err != nil {
		return specs.LinuxSyscall{}, err
	}
	return specs.LinuxSyscall{Names: names, Action: r.Action, ErrnoRet: errnoRet, Args: r.Args}, nil
}

// all reports whether every part of the condition holds.
func (f *fileFilter) all(o DefaultOptions) (bool, error) {
	if f == nil {
		return true, nil
	}
	major, minor, err := f.check()
	if err != nil {
		return false, err
	}
	for _, c := range f.Caps {
		if !o.has(c) {
			return false, nil
		}
	}
	return (len(f.Arches) == 0 || slices.Contains(f.Arches, o.Arch)) && (f.MinKernel == "" || o.atLeast(major, minor)), nil
}

// any reports whether some part of the condition holds.
func (f *fileFilter) any(o DefaultOptions) (bool, error) {
	if f == nil {
		return false, nil
	}
	major, minor, err := f.check()
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(f.Caps, o.has) || slices.Contains(f.Arches, o.Arch) || f.MinKernel != "" && o.atLeast(major, minor), nil
}

// check returns the kernel of the condition, and an error that begins with the field if a part can never hold.
func (f *fileFilter) check() (major, minor int, err error) {
	for i, c := range f.Caps {
		name, ok := strings.CutPrefix(c, "CAP_")
		if !ok || name == "" || strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789") != "" {
			return 0, 0, wrong(fmt.Sprintf("/caps/%d", i), "%q is no capability, they look like CAP_SYS_ADMIN", c)
		}
	}
	for i, a := range f.Arches {
		switch a { // Docker's names: those of Go and of libseccomp mixed
		case "amd64", "x32", "x86", "arm", "arm64", "loong64", "loongarch64", "mips", "mips64", "mips64n32", "mipsel",
			"mipsel64", "mipsel64n32", "mips3l64n32", "mipsle", "parisc", "parisc64", "ppc", "ppc64", "ppc64le", "riscv64",
			"s390", "s390x":
		default:
			return 0, 0, wrong(fmt.Sprintf("/arches/%d", i), "unknown architecture %q", a)
		}
	}
	if f.MinKernel == "" {
		return 0, 0, nil
	}
	before, after, _ := strings.Cut(f.MinKernel, ".")
	ma, err1 := strconv.ParseUint(before, 10, 15)
	mi, err2 := strconv.ParseUint(after, 10, 15)
	if err1 != nil || err2 != nil {
		return 0, 0, wrong("/minKernel", "%q is not of the form 4.8", f.MinKernel)
	}
	return int(ma), int(mi), nil
}

// errnoName knows the errors that profiles use.
func errnoName(e uint32) string {
	switch e {
	case 1:
		return "EPERM"
	case 2:
		return "ENOENT"
	case 9:
		return "EBADF"
	case 12:
		return "ENOMEM"
	case 13:
		return "EACCES"
	case 22:
		return "EINVAL"
	case 38:
		return "ENOSYS"
	case 95:
		return "EOPNOTSUPP"
	case 97:
		return "EAFNOSUPPORT"
	}
	return ""
}
