package engine

import (
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/container"
	"glassbox/supervise"
)

// memory is what a process that lives long (a server) has read of containers. A list of three hundred is six hundred files to read and
// parse otherwise, each time that a dashboard asks. The files stay the truth: each is looked at before what was read of it is used.
type memory struct {
	sync.Mutex
	of map[string]remembered
}

type remembered struct {
	container, state stamp
	c                *container.Container
	s                *supervise.State
}

// stamp tells a file from what it was, or will be. Both are replaced by rename, so that another content has another inode; the times are
// for one that somebody writes in place.
type stamp struct {
	ino, size    uint64
	mtime, ctime unix.Timespec
}

// settled is how old a file must be for its stamp to say anything: two changes within one tick of the kernel's clock, which is at most
// 10 ms, can leave the same times.
const settled = 100 * time.Millisecond

// stampOf is a file's stamp as it is now. Zero: there is none.
func stampOf(path string) (s stamp, old bool) {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return stamp{}, true
	}
	s = stamp{ino: st.Ino, size: uint64(st.Size), mtime: st.Mtim, ctime: st.Ctim}
	return s, time.Since(time.Unix(st.Ctim.Unix())) > settled
}

// item reads a container and its state, or remembers them. With busy only the state of one that has no processes is read. The container is
// shared: nobody changes it.
func (e *Engine) item(id string, busy bool) (item, error) {
	if !e.cfg.Remember {
		return e.readItem(id, busy)
	}
	dir := e.dir(id)
	container, oldContainer := stampOf(filepath.Join(dir, supervise.ContainerFile))
	state, oldState := stampOf(filepath.Join(dir, supervise.StateFile))
	e.memory.Lock()
	known, ok := e.memory.of[id]
	e.memory.Unlock()
	if ok && known.container == container && known.state == state {
		s := *known.s
		return item{known.c, e.now(id, &s)}, nil
	}
	it, err := e.readItem(id, busy)
	if err != nil || it.c == nil || !oldContainer || !oldState || it.s.Error != "" {
		return it, err
	}
	kept := *it.s
	if kept.Status == supervise.Paused { // which is in no file of these
		kept.Status = supervise.Running
	}
	e.memory.Lock()
	defer e.memory.Unlock()
	if e.memory.of == nil {
		e.memory.of = map[string]remembered{}
	}
	e.memory.of[id] = remembered{container, state, it.c, &kept}
	return it, nil
}

func (e *Engine) readItem(id string, busy bool) (item, error) {
	s, err := e.state(id)
	if err != nil || busy && !s.Alive() && s.Status != supervise.Restarting {
		return item{nil, s}, err
	}
	c, err := e.readContainer(id)
	return item{c, s}, err
}

// forget drops what is remembered of containers that are no more, of which ids are those that there are.
func (m *memory) forget(ids []string) {
	m.Lock()
	defer m.Unlock()
	if len(m.of) <= 2*len(ids)+64 {
		return
	}
	keep := make(map[string]remembered, len(ids))
	for _, id := range ids {
		if known, ok := m.of[id]; ok {
			keep[id] = known
		}
	}
	m.of = keep
}
