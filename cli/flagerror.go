package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// plainFlagError says what is wrong with a flag in words of the command line: pflag hands on what Go's own parsers say
// ("strconv.ParseInt: parsing …").
func plainFlagError(err error) error {
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) {
		return err
	}
	flag := invalid.GetFlag()
	name := "--" + flag.Name
	if flag.Shorthand != "" {
		name = "-" + flag.Shorthand + ", " + name
	}
	return fmt.Errorf("invalid argument %q for %q flag: %s", invalid.GetValue(), name, plainly(invalid.Unwrap(), flag.Value.Type()))
}

// plainly is why a value can't be read as what a flag wants.
func plainly(err error, kind string) string {
	var number *strconv.NumError
	if errors.As(err, &number) {
		whole := kind != "decimal" && !strings.HasPrefix(kind, "float")
		switch {
		case errors.Is(err, strconv.ErrRange):
			return "the number is too " + tooMuch(number.Num)
		case kind == "bool":
			return "want true or false"
		case whole && strings.HasPrefix(kind, "uint"):
			return "want a whole number, not below 0"
		case whole:
			return "want a whole number"
		}
		return "want a number"
	}
	if kind == "duration" {
		return "want a time such as 500ms, 10s or 1m30s"
	}
	if kind == "bool" {
		return "want true or false"
	}
	return err.Error()
}

func tooMuch(number string) string {
	if strings.HasPrefix(number, "-") {
		return "small"
	}
	return "large"
}
