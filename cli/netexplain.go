package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"glassbox/engine"
	"glassbox/explain"
	"glassbox/network"
)

func (a *app) networkExplainCommand() *cobra.Command {
	var q engine.PacketQuestion
	var format string
	cmd := &cobra.Command{
		Use:   "explain [OPTIONS] [FROM TO[:PORT[/PROTO]]]",
		Short: "Whether a packet arrives, and which rules and routes it meets",
		Long: `Whether a packet arrives, and which rules and routes it meets on its way there, and its answer on the way back. Nothing is sent: the
routes and rules of the host and of containers are read, and the packet's way is gone through them.

FROM and TO are a container that runs, host, outside (anybody beyond the host's default route), or an address. Without a port it is a
ping. The exit code is 0 if the packet arrives and somebody takes it, else 1.

Without FROM and TO it tells of all networks: who is on them, who reaches whom, and by which rule. --format html makes a page of it.`,
		Example: `  glassbox network explain web db:5432
  glassbox network explain outside host:8080
  glassbox network explain agent 192.0.2.7:443
  glassbox network explain -6 web host:53/udp
  glassbox network explain --format json host web:80 | jq -r .why
  glassbox network explain --format html > networks.html`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return exactly(2)(cmd, args)
		},
		ValidArgsFunction: a.completeEnds,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return a.networkMap(cmd, format, q)
			}
			if format != "text" && format != "json" {
				return &usageError{err: fmt.Errorf("invalid value %q for --format: want text or json, or html without FROM and TO", format)}
			}
			q.From, q.To = args[0], args[1]
			e, err := a.open()
			if err != nil {
				return err
			}
			p, err := e.NetworkExplain(cmd.Context(), q)
			if err != nil {
				return err
			}
			if format == "json" {
				enc := json.NewEncoder(a.out)
				enc.SetEscapeHTML(false)
				enc.SetIndent("", "  ")
				err = enc.Encode(p)
			} else {
				err = writePath(a.out, p)
			}
			if err == nil && (p.Verdict != network.Arrives || p.Listening != nil && !*p.Listening) {
				err = &exitError{1}
			}
			return err
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&q.Proto, "proto", "", "tcp, udp, sctp or icmp (default: tcp with a port, icmp without)")
	fs.BoolVarP(&q.IPv6, "ipv6", "6", false, "A packet of IPv6, where both versions would do")
	fs.StringVar(&format, "format", "text", "text or json; of all networks html, too")
	return cmd
}

// networkMap tells of all networks.
func (a *app) networkMap(cmd *cobra.Command, format string, q engine.PacketQuestion) error {
	if q != (engine.PacketQuestion{}) {
		return &usageError{err: fmt.Errorf("--proto and --ipv6 are for one packet: want FROM and TO")}
	}
	if format != "text" && format != "json" && format != "html" {
		return &usageError{err: fmt.Errorf("invalid value %q for --format: want text, json or html", format)}
	}
	e, err := a.open()
	if err != nil {
		return err
	}
	all, err := e.NetworkMap(cmd.Context())
	if err != nil {
		return err
	}
	if format == "json" {
		enc := json.NewEncoder(a.out)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(all)
	}
	m := mapped(all)
	if format == "html" {
		return explain.WriteNetMap(a.out, m)
	}
	return explain.WriteNetMapText(a.out, m)
}

// mapped is the map in the words of explain.
func mapped(all *engine.NetworkMap) explain.NetMap {
	m := explain.NetMap{From: all.From, To: all.To, Left: all.Left}
	for _, n := range all.Networks {
		about := explain.MapNetwork{Name: n.Name, Driver: n.Driver, Members: n.Members}
		for _, s := range n.Subnets {
			about.About = append(about.About, s.Prefix.String())
		}
		switch {
		case n.Parent != "":
			about.About = append(about.About, "on top of "+n.Parent+", "+n.Mode)
		case n.Link != "":
			about.About = append(about.About, "bridge "+n.Link)
		}
		for word, is := range map[string]bool{"internal: no way out": n.Internal, "its containers don't reach each other": n.Isolated} {
			if is {
				about.About = append(about.About, word)
			}
		}
		slices.Sort(about.About)
		m.Networks = append(m.Networks, about)
	}
	for _, p := range all.Paths {
		way := explain.MapWay{From: p.From, To: p.To, Verdict: string(p.Verdict), Why: p.Why, Decides: p.Decides()}
		if p.Verdict == network.Arrives && p.Listening != nil && !*p.Listening {
			way.Verdict = "nobody listens"
		}
		for _, h := range p.Hops {
			way.Hops = append(way.Hops, explain.MapHop{Where: h.Where, What: h.What, Rules: h.Rules, Answer: h.Answer})
		}
		m.Ways = append(m.Ways, way)
	}
	return m
}

// completeEnds completes FROM and TO.
func (a *app) completeEnds(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := append(a.containerNames(cmd.Context(), args, "running", "paused"), "host", "outside")
	if len(args) == 1 {
		return names, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace // a port follows
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// writePath prints a way, one thing a line, with the rules below what they decide.
func writePath(w io.Writer, p *network.Path) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s from %s to %s %s\n", p.Proto, p.From, p.Destination, p.Verdict)
	width := 0
	for _, h := range p.Hops {
		width = max(width, len(h.Where))
	}
	answer := false
	for i, h := range p.Hops {
		if h.Answer && !answer {
			answer = true
			b.WriteString("\nthe answer\n")
		}
		fmt.Fprintf(&b, "%3d  %-*s  %s\n", i+1, width, h.Where, h.What)
		for _, r := range h.Rules {
			fmt.Fprintf(&b, "     %*s    %s\n", width, "", r)
		}
		for _, r := range h.Unknown {
			fmt.Fprintf(&b, "     %*s    not understood, taken as no match: %s\n", width, "", r)
		}
	}
	fmt.Fprintf(&b, "\n%s\n", p.Why)
	_, err := io.WriteString(w, b.String())
	return err
}
