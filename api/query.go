package api

import (
	"strconv"
	"strings"
	"time"

	"glassbox/build"
)

// bool reads a parameter as Docker does: all but a few words is true.
func (q *request) bool(name string) bool {
	return build.Truth(q.query(name))
}

// boolOr is bool for a parameter that has another default.
func (q *request) boolOr(name string, otherwise bool) bool {
	if !q.URL.Query().Has(name) {
		return otherwise
	}
	return q.bool(name)
}

func (q *request) query(name string) string { return q.URL.Query().Get(name) }

// number reads a parameter that is a number, or not there.
func (q *request) number(name string, otherwise int) (int, error) {
	text := q.query(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, invalid("invalid value %q for %s: want a number", text, name)
	}
	return n, nil
}

// timeout reads a parameter in seconds; nil: it isn't there.
func (q *request) timeout(name string) (*int, error) {
	if q.query(name) == "" {
		return nil, nil
	}
	n, err := q.number(name, 0)
	return &n, err
}

// moment reads a time: seconds since 1970 with a fraction, or RFC 3339. Zero: none was given.
func (q *request) moment(name string) (time.Time, error) {
	text := q.query(name)
	if text == "" || text == "0" {
		return time.Time{}, nil
	}
	seconds, fraction, _ := strings.Cut(text, ".")
	if n, err := strconv.ParseInt(seconds, 10, 64); err == nil {
		nano, err := strconv.ParseUint((fraction + "000000000")[:9], 10, 32)
		if err != nil || len(fraction) > 9 {
			return time.Time{}, invalid("invalid value %q for %s: want seconds since 1970", text, name)
		}
		return time.Unix(n, int64(nano)), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, invalid("invalid value %q for %s: want seconds since 1970, or a time of RFC 3339", text, name)
}

// filters reads the parameter of that name; the result is KEY=VALUE, as the engine takes it.
func (q *request) filters() ([]string, error) {
	out, err := build.Filters(q.query("filters"))
	if err != nil {
		return nil, invalid("%v", err)
	}
	return out, nil
}
