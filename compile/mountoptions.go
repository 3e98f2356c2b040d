package compile

import (
	"slices"
	"strings"
)

// mountOptions is a mount's option list, sorted by what takes it.
type mountOptions struct {
	set, clear  []string // attributes of the mount
	recSet      []string // attributes of the mount and those below it
	recClear    []string
	super       []string // flags of the file system that fsconfig(2) knows: sync dirsync lazytime mand
	classic     []string // flags of the file system that only mount(2) knows: silent iversion
	data        []string // for the file system
	propagation []string // in order, as written
	remount     bool
	copyUp      bool
}

// opposites are the words that take back another word: of two that exclude each other the later one counts. Access times have
// three modes, of which relatime is the kernel's own choice; whoever doesn't want one of the others gets that.
var opposites = map[string]string{
	"rw": "ro", "suid": "nosuid", "dev": "nodev", "exec": "noexec", "diratime": "nodiratime", "symfollow": "nosymfollow",
	"async": "sync", "nolazytime": "lazytime", "nomand": "mand", "noiversion": "iversion", "loud": "silent",
}

var (
	attributeWords   = []string{"ro", "nosuid", "nodev", "noexec", "nodiratime", "nosymfollow", "noatime", "relatime", "strictatime"}
	atimeWords       = []string{"noatime", "relatime", "strictatime"}
	atimeDefaults    = []string{"atime", "norelatime", "nostrictatime"}
	superWords       = []string{"sync", "dirsync", "lazytime", "mand"}
	classicWords     = []string{"silent", "iversion"}
	propagationWords = []string{"private", "slave", "shared", "unbindable"}
)

func without(list []string, words ...string) []string {
	return slices.DeleteFunc(list, func(s string) bool { return slices.Contains(words, s) })
}

// attribute puts a word of a mount's attributes into the lists of those to set and those to clear, if it is one.
func attribute(word string, set, clear *[]string) bool {
	if slices.Contains(atimeDefaults, word) {
		word = "relatime"
	}
	other := opposites[word]
	switch {
	case slices.Contains(atimeWords, word):
		*set = append(without(*set, atimeWords...), word)
	case slices.Contains(attributeWords, word):
		*set, *clear = append(without(*set, word), word), without(*clear, word)
	case slices.Contains(attributeWords, other):
		*set, *clear = without(*set, other), append(without(*clear, other), other)
	default:
		return false
	}
	return true
}

// own are the attributes that a mount without others below it gets.
func (o mountOptions) own() []string {
	set, clear := slices.Clone(o.set), slices.Clone(o.clear)
	for _, word := range o.recSet {
		attribute(word, &set, &clear)
	}
	return without(set, o.recClear...)
}

func parseOptions(options []string) mountOptions {
	var o mountOptions
	for _, opt := range options {
		plain, rec := strings.CutPrefix(opt, "r")
		other := opposites[opt]
		switch {
		case opt == "bind" || opt == "rbind" || opt == "defaults" || opt == "" || opt == "idmap" || opt == "ridmap":
		case forTable(opt):
		case opt == "remount":
			o.remount = true
		case opt == "tmpcopyup":
			o.copyUp = true
		case slices.Contains(superWords, opt):
			o.super = append(without(o.super, opt), opt)
		case slices.Contains(classicWords, opt):
			o.classic = append(without(o.classic, opt), opt)
		case slices.Contains(superWords, other):
			o.super = without(o.super, other)
		case slices.Contains(classicWords, other):
			o.classic = without(o.classic, other)
		case slices.Contains(propagationWords, opt), rec && slices.Contains(propagationWords, plain):
			o.propagation = append(o.propagation, opt)
		case attribute(opt, &o.set, &o.clear), rec && attribute(plain, &o.recSet, &o.recClear):
		default:
			o.data = append(o.data, opt)
		}
	}
	return o
}

// forTable reports whether a word is for who reads /etc/fstab, and means nothing for a mount (fstab(5), mount(8)).
func forTable(word string) bool {
	return word == "nofail" || word == "_netdev" || strings.HasPrefix(word, "x-") || strings.HasPrefix(word, "comment=")
}

// unnamed are the attributes that a bind mount loses because its options name others (see Input.NamedFlags). Access times stay as they
// are: mount(2) preserves them in a remount that doesn't name them, and that is what runc makes.
func (o mountOptions) unnamed() []string {
	if len(o.set)+len(o.clear)+len(o.super)+len(o.classic) == 0 {
		return nil
	}
	return without([]string{"ro", "nosuid", "nodev", "noexec", "nosymfollow"}, slices.Concat(o.set, o.clear)...)
}
