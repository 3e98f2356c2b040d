package doctor

import "strings"

// firewalls says what other firewalls would do with containers' packets.
func (d *diagnosis) firewalls() {
	f := d.f
	const name, source = "other firewalls", "the forward chains, over netlink; ip_tables_names"
	switch {
	case f.MendErr != "":
		d.no(Item{
			Group: groupNetwork, Name: name, Status: Limited, Value: strings.Join(f.Blocking, ", "), Source: source,
			Means: "These chains drop what is forwarded, and the rules that let containers through can't be made.",
			Mend:  "nft list ruleset shows the chain, glassbox explain run IMAGE what is needed there (" + f.MendErr + ")",
		})
	case len(f.Unseen) > 0:
		d.no(Item{
			Group: groupNetwork, Name: name, Status: Limited, Value: strings.Join(f.Unseen, ", "), Source: source,
			Means: "A firewall was made with a program that isn't here: whether it drops containers' packets can't be seen.",
			Mend:  d.install("iptables"),
		})
	case len(f.Blocking) > 0:
		d.yes(groupNetwork, name, strings.Join(f.Blocking, ", "),
			"These chains drop what is forwarded; networks with containers are let through, by rules with the comment glassbox, which each "+
				"command puts back where they are gone.", source)
	// Only if it has been asked: otherwise nothing is known, and the item of nf_tables says so.
	case f.NFTables == "":
		d.yes(groupNetwork, name, "none drops", "Containers reach the outside.", source)
	}
}
