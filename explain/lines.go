package explain

// Clean makes control characters visible: names may come from an image, and a terminal obeys what it is sent.
func Clean(s string) string { return clean(s) }

// EscapeJSON writes in a JSON document what Clean would make visible as \uXXXX: the same to a machine, and nothing for a terminal to obey.
func EscapeJSON(data []byte) []byte { return escapeJSON(data) }

// Wrap breaks a text at spaces into lines of a width, and a word that is too long anywhere.
func Wrap(s string, width int) []string { return wrap(s, width) }

// Refusal are lines that say that a plan would be refused, and why; the first begins with whose it is. It is none without a reason.
func Refusal(whose, why string, o TextOptions) []string {
	if why == "" {
		return nil
	}
	lines := wrap(clean(whose+refusal(why)), o.Width)
	for i, line := range lines {
		if o.Color {
			lines[i] = "\x1b[" + bad + "m" + line + "\x1b[0m"
		}
	}
	return lines
}
