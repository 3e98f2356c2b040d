package container

import "strings"

// ParseStorageOpt reads options of a container's layer: size=BYTES is the only one, as with Docker's overlay2.
func ParseStorageOpt(options []string) (map[string]string, error) {
	var out map[string]string
	for _, text := range options {
		key, value, _ := strings.Cut(text, "=")
		if !strings.EqualFold(key, "size") {
			return nil, Invalid("--storage-opt %s: unknown option %q: want size=BYTES", text, key)
		}
		if n, err := ParseSize("storage-opt size", value); err != nil {
			return nil, err
		} else if n <= 0 {
			return nil, Invalid("--storage-opt %s: want a size of at least one byte", text)
		}
		out = map[string]string{"size": value}
	}
	return out, nil
}

// LayerBytes is how much the container's own layer may take on the disk; 0: as much as there is.
func (c *Config) LayerBytes() int64 {
	n, _ := ParseSize("storage-opt size", c.StorageOpt["size"]) // read once already
	return n
}
