package image

import "glassbox/event"

// happened writes down what has been done to an image, with what Docker's daemon says of it (LogImageEvent in daemon/images): the image's
// labels, as long as it is there, and a name. An image that is pulled is called by its reference, any other by its ID.
func (s *Store) happened(action, actor, name string, img *Image) {
	if s.State == "" {
		return
	}
	a := event.Actor{ID: actor}
	if img != nil {
		a.Attributes = img.Config.Config.Labels
	}
	event.Write(s.State, event.New(event.Image, action, a, "name", name))
}

// removed writes down what a removal has done, whether or not it came to its end. The labels of an image that is gone are gone, too.
func (s *Store) removed(img *Image, untagged int, deleted bool) {
	for range untagged {
		s.happened(event.Untag, img.ID, img.ID, img)
	}
	if deleted {
		s.happened(event.Delete, img.ID, img.ID, nil)
	}
}
