package lazyjson

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"time"
)

type pointed struct{ a int }

func (p *pointed) MarshalJSON() ([]byte, error) { return json.Marshal(p.a) }

func (p *pointed) UnmarshalJSON(data []byte) error {
	if string(data) == "{}" {
		return nil
	}
	return json.Unmarshal(data, &p.a)
}

type text string

func (t text) MarshalText() ([]byte, error) { return []byte("<" + t + ">"), nil }

type octet byte

func (o octet) MarshalJSON() ([]byte, error) { return json.Marshal(int(o) * 2) }

type Embedded struct{ E, Plain string }

type odd struct {
	Embedded
	E string
}

type all struct {
	Plain     string
	Named     string `json:"named-it,omitempty"`
	Gone      string `json:"-"`
	Quoted    int    `json:"quoted,string"`
	hidden    string
	Bool      bool               `json:",omitempty"`
	Int       int8               `json:"int,omitempty"`
	Uint      uint64             `json:"uint"`
	Float     float64            `json:"float"`
	Bytes     []byte             `json:"bytes,omitempty"`
	Octets    []octet            `json:"octets"`
	Array     [3]int16           `json:"array,omitempty"`
	List      []string           `json:"list"`
	Map       map[string]*all    `json:"map"`
	Ints      map[int]string     `json:"ints"`
	Texts     map[text]text      `json:"texts,omitempty"`
	Any       any                `json:"any,omitempty"`
	Pointer   *int               `json:"pointer"`
	Omit      *bool              `json:"omit,omitempty"`
	Pointed   pointed            `json:"pointed"`
	PointedTo *pointed           `json:"pointedTo"`
	Time      time.Time          `json:"time,omitzero"`
	Addr      netip.Addr         `json:"addr,omitzero"`
	Wait      time.Duration      `json:"wait,omitempty"`
	Raw       json.RawMessage    `json:"raw,omitempty"`
	Number    json.Number        `json:"number"`
	Odd       odd                `json:"odd"`
	Zero      struct{ A, B int } `json:"zero,omitzero"`
	Labels    map[string]string  `json:"labels,omitempty"`
}

// A smaller one is not left to encoding/json as a whole, which all is for its field "quoted".
type some struct {
	Plain   string             `json:"plain"`
	All     *all               `json:"all,omitempty"`
	Some    []some             `json:"some,omitempty"`
	Pointed pointed            `json:"pointed"`
	Time    time.Time          `json:"time,omitzero"`
	Until   *time.Time         `json:"until,omitempty"`
	Addr    netip.Addr         `json:"addr,omitzero"`
	Zero    struct{ A, B int } `json:"zero,omitzero"`
	Array   [2]bool            `json:"array,omitempty"`
	Any     any                `json:"any,omitempty"`
	Map     map[string]any     `json:"map"`
	Octets  []octet            `json:"octets"`
	Bytes   []byte             `json:"bytes"`
	Texts   map[text]text      `json:"texts,omitempty"`
	Float   float32            `json:"float"`
	Raw     json.RawMessage    `json:"raw,omitempty"`
}

// TestAsEncodingJSON: values at random are written as encoding/json writes them.
func TestAsEncodingJSON(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 1))
	for range 2000 {
		var v some
		fill(r, reflect.ValueOf(&v).Elem(), 4)
		for _, v := range []any{v, &v, v.Map, v.All, v.Some} {
			want, wantErr := json.Marshal(v)
			got, err := Marshal(v)
			if (err != nil) != (wantErr != nil) || wantErr == nil && !bytes.Equal(got, want) {
				t.Fatalf("seed %d: got %s, %v; want %s, %v", seed, got, err, want, wantErr)
			}
		}
	}
	// Tags that nobody should write.
	rare := reflect.New(reflect.StructOf([]reflect.StructField{
		{Name: "Dash", Type: reflect.TypeFor[string](), Tag: `json:"-,"`},
		{Name: "Bad", Type: reflect.TypeFor[string](), Tag: `json:"a\"b"`},
	})).Elem()
	for _, v := range []any{
		nil, (*some)(nil), make(chan int),
		map[string]any{"a": func() {}},
		[]any{1, "x", nil, 1.5e300},
		odd{},
		all{hidden: "unseen"},
		rare.Interface(),
	} {
		want, wantErr := json.Marshal(v)
		got, err := Marshal(v)
		if (err != nil) != (wantErr != nil) || wantErr == nil && !bytes.Equal(got, want) {
			t.Errorf("%T: got %s, %v; want %s, %v", v, got, err, want, wantErr)
		}
	}
}

// TestAsEncodingJSONReads: what was written is read as encoding/json reads it, and most of it in our own way.
func TestAsEncodingJSONReads(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 1))
	own, all := 0, 0
	for range 2000 {
		var v some
		fill(r, reflect.ValueOf(&v).Elem(), 4)
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		same(t, data)
		if json.Unmarshal(data, new(some)) != nil {
			continue
		}
		all++
		if d := (&decoder{data: data, types: types{}}); d.value(reflect.ValueOf(new(some)).Elem()) {
			own++
		}
	}
	if own < all || all < 1000 {
		t.Errorf("seed %d: only %d of %d were read without encoding/json", seed, own, all)
	}
}

// same compares what is read with what encoding/json reads, the error too.
func same(t *testing.T, data []byte) {
	t.Helper()
	var got, want some
	wantErr := json.Unmarshal(data, &want)
	if err := Unmarshal(data, &got); !reflect.DeepEqual(err, wantErr) || !reflect.DeepEqual(got, want) {
		t.Fatalf("%s: got %+v, %v; want %+v, %v", data, got, err, want, wantErr)
	}
	got, want = some{Plain: "before", Map: map[string]any{"a": 1}}, some{Plain: "before", Map: map[string]any{"a": 1}}
	json.Unmarshal(data, &want)
	if Unmarshal(data, &got); !reflect.DeepEqual(got, want) {
		t.Fatalf("%s: into a value that isn't zero: got %+v; want %+v", data, got, want)
	}
}

func FuzzUnmarshal(f *testing.F) {
	for _, s := range []string{
		`{}`, ` {"plain" : "a\u00e9" , "some":[{"plain":"b"}, null], "array":[true,false,true]}`, `{"plain":"a","plain":"b"}`, `{"PLAIN":"x"}`,
		`{"map":{"a":1,"a":[{}]},"bytes":"YQ==","octets":[1,2],"texts":{"a":"b"},"float":1e3}`, `{"time":"2024-01-01T00:00:00Z","addr":"::1"}`,
		`{"all":{"quoted":"5","int":-0,"uint":01}}`, `{"some":[{"zero":{"A":1.0}}]}`, `{"plain":"a"}x`, `null`, `[1`, `{"plain":"\ud800"}`,
		`{"all":{"wait":-9223372036854775808,"int":128}}`, `{"any":}`, `{"any":1]`, `{"pointed":null,"until":null,"raw":[ 1 ]}`,
		"{\"plain\":\"\xff\"}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) { same(t, data) })
}

// fill puts something into a value, at random.
func fill(r *rand.Rand, v reflect.Value, depth int) {
	if r.IntN(3) == 0 || !v.CanSet() {
		return
	}
	switch v.Type() {
	case reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Unix(r.Int64N(1<<33), r.Int64N(1e9)).UTC()))
		return
	case reflect.TypeFor[netip.Addr]():
		v.Set(reflect.ValueOf(netip.AddrFrom4([4]byte{1, 2, 3, byte(r.IntN(256))})))
		return
	case reflect.TypeFor[json.RawMessage]():
		v.SetBytes([]byte(` { "a" : [ 1, "<" ] } `))
		return
	case reflect.TypeFor[json.Number]():
		v.SetString("1.50")
		return
	}
	words := []string{"", "plain", "a b/c=d", "<&>", "ünï\u2028", "\x00\x1f\x7f", "\xff\xfe", `"\`, "\n\t"}
	switch v.Kind() {
	case reflect.String:
		v.SetString(words[r.IntN(len(words))])
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(r.Int64() - 1<<62)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(r.Uint64())
	case reflect.Float32, reflect.Float64:
		v.SetFloat(r.Float64() * 1e9)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(r, v.Field(i), depth)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(r, v.Index(i), depth)
		}
	case reflect.Pointer:
		if depth > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(r, v.Elem(), depth-1)
		}
	case reflect.Slice:
		if depth > 0 {
			v.Set(reflect.MakeSlice(v.Type(), r.IntN(3), 3))
			for i := range v.Len() {
				fill(r, v.Index(i), depth-1)
			}
		}
	case reflect.Map:
		if depth > 0 {
			v.Set(reflect.MakeMap(v.Type()))
			for range r.IntN(4) {
				key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
				fill(r, key, depth-1)
				fill(r, value, depth-1)
				v.SetMapIndex(key, value)
			}
		}
	case reflect.Interface:
		v.Set(reflect.ValueOf([]any{
			"y", "x", 3, true,
			[]string{"<"},
			map[string]int{"b": 1, "a": 2},
			&pointed{4},
			pointed{4},
			text("t"),
			some{Plain: "in it"},
			time.Second,
		}[r.IntN(11)]))
	}
}
