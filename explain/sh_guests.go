package explain

import (
	"strings"

	"glassbox/plan"
)

// guestCommands let in through a wall who has the names now. What follows the names later is glassbox itself.
func guestCommands(o *plan.NftWall) []string {
	var lines []string
	for _, text := range o.Guests {
		name, port, _ := strings.Cut(text, ":")
		set, key := "guests", "{ $a }"
		if port != "" {
			number, proto, _ := strings.Cut(port, "/")
			if proto == "" {
				proto = "tcp"
			}
			set, key = "guest_ports", "{ $a . "+proto+" . "+number+" }"
		}
		lines = append(lines, "for l in "+quote(o.Names+"/"+name)+"/*; do for a in $(readlink \"$l\" | tr , ' '); do "+
			"case $a in *:*) s="+set+"6;; *) s="+set+";; esac; nft add element netdev "+quote(o.Table)+" $s \""+key+"\"; done; done")
	}
	return lines
}
