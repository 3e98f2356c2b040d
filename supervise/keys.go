package supervise

import "bytes"

// keys looks for a sequence in what is typed. What may yet become the sequence is held back until it is clear.
type keys struct {
	sequence []byte
	held     int // how many bytes of it were typed
}

// newKeys returns nil where there is no sequence to look for.
func newKeys(sequence []byte) *keys {
	if len(sequence) == 0 {
		return nil
	}
	return &keys{sequence: sequence}
}

// filter returns what of the input is the program's, and whether the sequence was complete: what follows it is nobody's.
func (k *keys) filter(input []byte) (rest []byte, complete bool) {
	if k == nil || k.held == 0 && bytes.IndexByte(input, k.sequence[0]) < 0 {
		return input, false
	}
	for _, b := range input {
		for k.held > 0 && b != k.sequence[k.held] {
			k.back(&rest)
		}
		if b != k.sequence[k.held] {
			rest = append(rest, b)
			continue
		}
		if k.held++; k.held == len(k.sequence) {
			k.held = 0
			return rest, true
		}
	}
	return rest, false
}

// back gives up as many of the held bytes as it takes for the others to be a beginning of the sequence again.
func (k *keys) back(rest *[]byte) {
	held := k.sequence[:k.held]
	n := 1
	for !bytes.HasPrefix(k.sequence, held[n:]) {
		n++
	}
	*rest = append(*rest, held[:n]...)
	k.held -= n
}
