package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"text/template"
	"time"
	"unicode/utf8"

	"glassbox/docker"
)

// printRows prints rows as --format says: "table" (the columns of the command), "table TEMPLATE", "json" (one object a line)
// or a template. Header is the row that a table begins with. The words are Docker's.
func printRows[T any](w io.Writer, format, columns string, header T, rows []T) error {
	table := false
	switch {
	case format == "" || format == "table":
		table, format = true, columns
	case strings.HasPrefix(format, "table "):
		table, format = true, strings.TrimSpace(strings.TrimPrefix(format, "table "))
	case format == "json":
		format = "{{json .}}"
	}
	t, err := newTemplate(unescape(format))
	if err != nil {
		return err
	}
	t.Funcs(template.FuncMap{"json": func(v any) (string, error) {
		// A whole row is encoded as Docker does it: with < > & as a browser needs them. A field of it stands as it is.
		if _, ok := v.(T); ok {
			b, err := json.Marshal(v)
			return string(b), err
		}
		return encoded(v)
	}})
	out := bufio.NewWriter(w) // a template writes word by word
	defer out.Flush()
	w = out
	if table {
		tw := newColumns(out)
		defer tw.Flush() // before out
		w, rows = tw, append([]T{header}, rows...)
	}
	for _, row := range rows {
		if err := t.Execute(w, row); err != nil {
			return templateError(err, row)
		}
		fmt.Fprintln(w)
	}
	return nil
}

// newColumns aligns cells that are parted by tabs, as docker's tables are.
func newColumns(out io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(out, 10, 1, 3, ' ', 0) }

// unescape writes \t and \n in a row's template as what they say, as docker does, but not within actions, where strings are Go's.
func unescape(text string) string {
	var b strings.Builder
	for {
		plain, rest, ok := strings.Cut(text, "{{")
		b.WriteString(strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(plain))
		if !ok {
			return b.String()
		}
		action, after, _ := strings.Cut(rest, "}}")
		b.WriteString("{{" + action)
		if len(action) < len(rest) {
			b.WriteString("}}")
		}
		text = after
	}
}

// encoded is JSON as templates print it.
func encoded(v any) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return strings.TrimSpace(b.String()), err
}

// newTemplate parses a template with Docker's functions.
func newTemplate(text string) (*template.Template, error) {
	t, err := template.New("").Funcs(template.FuncMap{
		"json":  encoded,
		"split": strings.Split,
		"join":  join,
		"title": title,
		"lower": strings.ToLower,
		"upper": strings.ToUpper,
		"pad": func(s string, prefix, suffix int) string {
			return strings.Repeat(" ", prefix) + s + strings.Repeat(" ", suffix)
		},
		"truncate": func(s string, n int) string {
			if r := []rune(s); len(r) > n {
				return string(r[:n])
			}
			return s
		},
	}).Parse(text)
	if err != nil {
		return nil, &badTemplate{templateError(err, nil)}
	}
	return t, nil
}

// join joins lists of strings, also those that come from JSON.
func join(list any, sep string) (string, error) {
	switch list := list.(type) {
	case []string:
		return strings.Join(list, sep), nil
	case []any:
		words := make([]string, len(list))
		for i, v := range list {
			words[i] = fmt.Sprint(v)
		}
		return strings.Join(words, sep), nil
	}
	return "", fmt.Errorf("%v is no list", list)
}

// title capitalises the first letter, which is all that Docker's function does to a word.
func title(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	if n == 0 {
		return ""
	}
	return strings.ToUpper(string(r)) + s[n:]
}

// printValue prints any value through a template as inspect does: fields by their Go names first, then by their names in JSON.
func printValue(w io.Writer, format string, v any) error {
	if format == "json" {
		format = "{{json .}}"
	}
	t, err := newTemplate(format)
	if err != nil {
		return err
	}
	t.Option("missingkey=error")
	var b bytes.Buffer
	if err := t.Execute(&b, v); err != nil {
		var raw any
		if recode(v, &raw) != nil {
			return templateError(err, nil)
		}
		b.Reset()
		if err := t.Execute(&b, raw); err != nil {
			return templateError(err, nil)
		}
	}
	fmt.Fprintln(w, b.String())
	return nil
}

// recode copies a value by way of JSON. Numbers stay as they are written.
func recode(from, to any) error {
	data, err := json.Marshal(from)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return d.Decode(to)
}

// size writes a number of bytes as docker does: decimal units, three digits.
func size(n int64) string {
	f := float64(n)
	units := []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}
	i := 0
	for f >= 1000 && i < len(units)-1 {
		f /= 1000
		i++
	}
	return fmt.Sprintf("%.3g%s", f, units[i])
}

// since writes how long ago a moment was.
func since(now, t time.Time) string {
	if t.IsZero() {
		return "N/A"
	}
	return docker.Ago(now.Sub(t)) + " ago"
}

// stamp writes a time as docker's CreatedAt.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "N/A"
	}
	return t.Local().Format("2006-01-02 15:04:05 -0700 MST")
}

// ellipsis shortens a text to n characters.
func ellipsis(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

// short is the form of an ID that people read.
func short(id string, full bool) string {
	if full || len(id) <= 12 {
		return id
	}
	return id[:12]
}
