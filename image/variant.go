package image

import "errors"

func (p *pull) variant(h *held, below []Layer, chain string) (*layerRecord, error) {
	return nil, errors.New("variant: not yet")
}
