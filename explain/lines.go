package explain

// Clean makes control characters visible: names may come from an image, and a terminal obeys what it is sent.
func Clean(s string) string { return clean(s) }

// Wrap breaks a text at spaces into lines of a width, and a word that is too long anywhere.
func Wrap(s string, width int) []string { return wrap(s, width) }
