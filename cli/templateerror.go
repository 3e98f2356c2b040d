package cli

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"
)

// badTemplate is an error of a template before anything is printed by it.
type badTemplate struct{ error }

func (e *badTemplate) Unwrap() error { return e.error }

// templateError says what is wrong with a template of --format. The library tells it in types of this program ("can't evaluate field X in
// type cli.psRow"), which is no help to whoever typed it. Of a row, its names are listed.
func templateError(err error, row any) error {
	text := strings.TrimPrefix(err.Error(), "template: ")
	at := regexp.MustCompile(`(?s)^:\d+(?::\d+)?: (?:executing "[^"]*" at <(.*?)>: )?(.*)$`).FindStringSubmatch(text)
	if at == nil {
		return fmt.Errorf("template parsing error: %s", plainTemplate(text))
	}
	place, why := at[1], plainTemplate(at[2])
	if place != "" {
		why = place + ": " + why
	}
	err = fmt.Errorf("template parsing error: %s", why)
	if names := fields(row); names != "" && strings.Contains(why, "there is no ") {
		err = fmt.Errorf("%w\nhint: there are %s", err, names)
	}
	return err
}

func plainTemplate(text string) string {
	for _, r := range [...][2]string{
		{`can't evaluate field (\S+) in type .*`, "there is no $1"},
		{`map has no entry for key "(.*?)"`, "there is no $1"},
		{`nil pointer evaluating \S+\.(\S+)`, "there is no $1"},
		{`nil data; no entry for key "(.*?)"`, "there is no $1"},
		{`^error calling (\w+): (?:reflect: )?`, "$1: "},
		{`unexpected EOF`, "unexpected end"},
		{`\binterface \{\}`, "value"},
	} {
		text = regexp.MustCompile(r[0]).ReplaceAllString(text, r[1])
	}
	return text
}

// fields are the names of a row as templates have them.
func fields(row any) string {
	t := reflect.TypeOf(row)
	if t == nil || t.Kind() != reflect.Struct {
		return ""
	}
	var names []string
	for f := range t.Fields() {
		if f.IsExported() {
			names = append(names, "."+f.Name)
		}
	}
	return strings.Join(names, " ")
}
