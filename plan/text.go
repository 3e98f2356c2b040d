package plan

import "strings"

// Words for the sentences of the ops.

func when(ok bool, s string) string {
	if ok {
		return s
	}
	return ""
}

func prefix(p, s string) string { return when(s != "", p+s) }

func paren(words []string) string {
	return when(len(words) > 0, " ("+list(words)+")")
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func list(words []string) string { return strings.Join(words, ",") }
