package container

import (
	"slices"
	"strconv"
	"strings"
)

// Drivers of logs (--log-driver).
const (
	JSONFile = "json-file"
	Local    = "local"
	Journald = "journald"
	NoLog    = "none"
)

// LogDrivers are all that there are, Docker's default first.
func LogDrivers() []string { return []string{JSONFile, Local, Journald, NoLog} }

// Log is where output goes.
type Log struct {
	Driver   string `json:"driver,omitempty"`   // empty: json-file
	MaxSize  int64  `json:"maxSize,omitempty"`  // bytes of a file; 0: the driver's default; negative: no limit
	MaxFiles int    `json:"maxFiles,omitempty"` // 0: the driver's default
	// Drop: what the journal doesn't take at once is lost (mode=non-blocking).
	Drop bool `json:"drop,omitempty"`
	// Compress: whether files that have been rotated away are compressed, "true" or "false"; empty: as the driver does.
	Compress string `json:"compress,omitempty"`
	// What goes with each line: of these labels and environment variables of the container, by name or by regular expression, the values,
	// and a tag, a template.
	Labels      []string `json:"labels,omitempty"`
	LabelsRegex string   `json:"labelsRegex,omitempty"`
	Env         []string `json:"env,omitempty"`
	EnvRegex    string   `json:"envRegex,omitempty"`
	Tag         string   `json:"tag,omitempty"`
}

// IsZero is for encoding/json.
func (l Log) IsZero() bool { return l.DriverName() == JSONFile && len(l.options()) == 0 }

// DriverName is the driver.
func (l Log) DriverName() string { return first(l.Driver, JSONFile) }

// Limits returns the size in bytes at which a log is rotated (0: never) and how many files of it there are. Logs that grow without bound
// have filled many a disk, so json-file has bounds here: 3 files of 10 MiB; local has Docker's, 5 of 20 MiB.
func (l Log) Limits() (size int64, files int) {
	size, files = 10<<20, 3
	if l.Driver == Local {
		size, files = 20<<20, 5
	}
	if l.MaxSize != 0 {
		size = max(l.MaxSize, 0)
	}
	if l.MaxFiles != 0 {
		files = l.MaxFiles
	}
	return size, files
}

// Compressed reports whether files of the log that have been rotated away are compressed: local does so by default, as with Docker, where
// there is more than one file.
func (l Log) Compressed() bool {
	if l.Compress != "" {
		return l.Compress == "true"
	}
	size, files := l.Limits()
	return l.Driver == Local && files > 1 && size > 0
}

// logOptions are the options of a driver.
func logOptions(driver string) []string {
	about := []string{"labels", "labels-regex", "env", "env-regex", "tag"}
	switch driver {
	case JSONFile:
		return append([]string{"max-size", "max-file", "mode", "compress"}, about...)
	case Local:
		return []string{"max-size", "max-file", "mode", "compress"}
	case Journald:
		return append([]string{"mode"}, about...)
	}
	return nil
}

// parseLog reads --log-driver and --log-opt max-size=16m, max-file=3 …
func parseLog(driver string, opts []string) (Log, error) {
	l := Log{Driver: driver}
	// Kept as nothing, so that a container that asks for the default and one that doesn't say anything are the same.
	if driver == JSONFile {
		l.Driver = ""
	}
	if !slices.Contains(LogDrivers(), l.DriverName()) {
		return l, Invalid("--log-driver %s: there is no such log driver: want %s", driver, strings.Join(LogDrivers(), ", "))
	}
	known := logOptions(l.DriverName())
	for _, opt := range opts {
		key, value, ok := strings.Cut(opt, "=")
		if !slices.Contains(known, key) {
			if known == nil {
				return l, Invalid("--log-opt %s: log driver %s takes no options", opt, l.DriverName())
			}
			return l, Invalid("--log-opt %s: unknown option of log driver %s: want %s", opt, l.DriverName(), strings.Join(known, ", "))
		}
		if !ok {
			return l, Invalid("--log-opt %s: want %s=VALUE", opt, key)
		}
		if err := l.set(key, value); err != nil {
			return l, err
		}
	}
	if size, files := l.Limits(); l.Compress == "true" && (files < 2 || size == 0) {
		return l, Invalid("--log-opt compress=true: compress cannot be true when max-file is less than 2 or max-size is not set")
	}
	return l, nil
}

// set takes one option.
func (l *Log) set(key, value string) (err error) {
	switch key {
	case "max-size":
		// Kept below zero, as zero is the driver's default: without end is something that was asked for.
		if l.MaxSize = -1; value != "-1" {
			if l.MaxSize, err = ParseSize("log-opt", value); l.MaxSize == 0 {
				l.MaxSize = -1
			}
		}
	case "max-file":
		if l.MaxFiles, err = strconv.Atoi(value); err != nil || l.MaxFiles < 1 || l.MaxFiles > 100 {
			return Invalid("--log-opt max-file=%s: want a number from 1 to 100", value)
		}
	case "mode":
		if value != "blocking" && value != "non-blocking" {
			return Invalid("--log-opt mode=%s: want blocking or non-blocking", value)
		}
		l.Drop = value == "non-blocking"
	case "compress":
		on, err := strconv.ParseBool(value)
		if err != nil {
			return Invalid("--log-opt compress=%s: want true or false", value)
		}
		l.Compress = strconv.FormatBool(on)
	case "labels":
		l.Labels = words(value)
	case "env":
		l.Env = words(value)
	case "labels-regex", "env-regex":
		if key == "env-regex" {
			l.EnvRegex = value
		} else {
			l.LabelsRegex = value
		}
	case "tag":
		l.Tag = value
	}
	return err
}

// words are the parts of a list with commas that aren't empty.
func words(list string) []string {
	return slices.DeleteFunc(strings.Split(list, ","), func(w string) bool { return w == "" })
}

// options are those that were given, as one would type them.
func (l Log) options() []string {
	var out []string
	add := func(key, value string) {
		if value != "" {
			out = append(out, key+"="+value)
		}
	}
	if l.MaxSize != 0 {
		add("max-size", strconv.FormatInt(l.MaxSize, 10))
	}
	if l.MaxFiles != 0 {
		add("max-file", strconv.Itoa(l.MaxFiles))
	}
	if l.Drop {
		add("mode", "non-blocking")
	}
	add("compress", l.Compress)
	add("labels", strings.Join(l.Labels, ","))
	add("labels-regex", l.LabelsRegex)
	add("env", strings.Join(l.Env, ","))
	add("env-regex", l.EnvRegex)
	add("tag", l.Tag)
	return out
}

// Asked are the options that were given, by name, as Docker tells them.
func (l Log) Asked() map[string]string {
	out := map[string]string{}
	for _, opt := range l.options() {
		key, value, _ := strings.Cut(opt, "=")
		out[key] = value
	}
	return out
}
