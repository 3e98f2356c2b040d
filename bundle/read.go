package bundle

import (
	"encoding/json"

	"glassbox/oci"
	"glassbox/plan"
)

// read is text's other direction. What most containers leave is read without package encoding/json, for the reason that write.go has.
func (l *leftovers) read(text []byte) error {
	var file struct {
		Cgroups map[string]string `json:"cgroups"`
		Steps   []struct {
			Lane  plan.Lane         `json:"lane"`
			Phase plan.Phase        `json:"phase"`
			Op    string            `json:"op"`
			Args  plan.CgroupRemove `json:"args"`
		} `json:"steps"`
	}
	// What isn't of the usual form, such as a step of another kind, is read by the general way, which is slower and
	// complete.
	if warnings, err := oci.Decode(text, &file); err != nil || len(warnings) > 0 {
		return json.Unmarshal(text, l)
	}
	left := leftovers{Cgroups: file.Cgroups}
	if file.Steps != nil {
		left.Steps = make([]plan.Step, 0, len(file.Steps))
	}
	for _, s := range file.Steps {
		if s.Op != s.Args.Kind() || s.Args.Path == "" {
			return json.Unmarshal(text, l)
		}
		left.Steps = append(left.Steps, plan.Step{Lane: s.Lane, Phase: s.Phase, Op: &plan.CgroupRemove{Path: s.Args.Path}})
	}
	*l = left
	return nil
}
