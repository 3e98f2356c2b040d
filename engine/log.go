package engine

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"glassbox/container"
	"glassbox/supervise"
)

// logOf says where a container's output goes, and what goes with it.
func logOf(c *container.Container) supervise.Log {
	o := c.Config.Log
	l := supervise.Log{Driver: o.DriverName(), Drop: o.Drop, Compress: o.Compressed()}
	l.MaxSize, l.MaxFiles = o.Limits()
	attrs := logAttributes(o, c.Labels(), c.Env())
	tag, err := logTag(o.Tag, c)
	if err != nil {
		tag = o.Tag // it was read when the container was made
	}
	switch l.Driver {
	case container.JSONFile:
		if tag != "" {
			attrs["tag"] = tag
		}
		if len(attrs) > 0 {
			text, _ := json.Marshal(attrs)
			l.Fields = string(text)
		}
	case container.Journald:
		l.Fields = journalFields(c, attrs, tag)
	}
	return l
}

// checkLog refuses what can't be read of what goes with each line.
func checkLog(c *container.Container) error {
	o := c.Config.Log
	// Now and not at the start: a container that could never be started isn't made.
	for key, expr := range map[string]string{"labels-regex": o.LabelsRegex, "env-regex": o.EnvRegex} {
		if _, err := regexp.Compile(expr); err != nil {
			return invalid("--log-opt %s=%s: it is no regular expression", key, expr)
		}
	}
	_, err := logTag(o.Tag, c)
	return err
}

// logAttributes are those labels and variables of a container that go with each line of its log.
func logAttributes(o container.Log, labels map[string]string, env []string) map[string]string {
	out := map[string]string{}
	chosen := func(key string, names []string, expr string) bool {
		if slices.Contains(names, key) {
			return true
		}
		fits, err := regexp.MatchString(expr, key)
		return expr != "" && err == nil && fits
	}
	for key, value := range labels {
		if chosen(key, o.Labels, o.LabelsRegex) {
			out[key] = value
		}
	}
	for _, entry := range env {
		if key, value, ok := strings.Cut(entry, "="); ok && chosen(key, o.Env, o.EnvRegex) {
			out[key] = value
		}
	}
	return out
}

// tagContext is what a tag's template can name: Docker's fields.
type tagContext struct {
	ID, FullID, Name, ImageID, ImageFullID, ImageName, Command, DaemonName string
}

// logTag fills in --log-opt tag; without one there is none.
func logTag(text string, c *container.Container) (string, error) {
	if text == "" {
		return "", nil
	}
	t, err := template.New("").Parse(text)
	if err != nil {
		return "", invalid("--log-opt tag=%s: braces in it hold a name, as in {{.Name}}", text)
	}
	image := strings.TrimPrefix(c.ImageID, "sha256:")
	var b strings.Builder
	err = t.Execute(&b, tagContext{
		ID: c.ID[:min(12, len(c.ID))], FullID: c.ID, Name: c.Name, ImageID: image[:min(12, len(image))], ImageFullID: c.ImageID,
		ImageName: c.ImageName(), Command: strings.Join(c.Args(), " "), DaemonName: "glassbox",
	})
	if err != nil {
		return "", invalid("--log-opt tag=%s: it can name .ID, .FullID, .Name, .ImageID, .ImageFullID, .ImageName, .Command and "+
			".DaemonName", text)
	}
	return b.String(), nil
}

// journalFields are the fields of a journal's entry that say whose it is, as Docker's driver names them.
func journalFields(c *container.Container, attrs map[string]string, tag string) string {
	short := c.ID[:min(12, len(c.ID))]
	if tag == "" {
		tag = short
	}
	var b strings.Builder
	field := func(key, value string) {
		fmt.Fprintf(&b, "%s=%s\n", key, strings.ReplaceAll(value, "\n", " "))
	}
	for _, f := range [][2]string{
		{"CONTAINER_ID", short},
		{"CONTAINER_ID_FULL", c.ID},
		{"CONTAINER_NAME", c.Name},
		{"CONTAINER_TAG", tag},
		{"SYSLOG_IDENTIFIER", tag},
		{"IMAGE_NAME", c.ImageName()},
	} {
		field(f[0], f[1])
	}
	for _, key := range slices.Sorted(maps.Keys(attrs)) {
		field(journalName(key), attrs[key])
	}
	return b.String()
}

// journalName makes a field's name of any text: journald takes A to Z, digits and underscores, none of these first, and not more than 64.
func journalName(key string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, key)
	name = strings.TrimLeft(name, "_0123456789")
	if name == "" {
		name = "FIELD"
	}
	return name[:min(64, len(name))]
}
