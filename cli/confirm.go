package cli

import (
	"bufio"
	"fmt"
	"strings"
)

// confirm asks before something is done that can't be taken back. What isn't a yes is a no.
func (a *app) confirm(warning string) (bool, error) {
	fmt.Fprint(a.out, warning+"\nAre you sure you want to continue? [y/N] ")
	line, _ := bufio.NewReader(a.in).ReadString('\n') // at the end of the input: no
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes", nil
}
