package wire

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// The kernel is asked how it refuses frames, and has no table more afterwards.
func TestWallRefusal(t *testing.T) {
	runtime.LockOSThread() // never unlocked: the thread ends with its namespace
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skip("needs root for a network namespace: ", err)
	}
	how, err := WallRefusal()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%q", how)
	c, err := Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	chains, err := c.Chains()
	if err != nil || len(chains) > 0 {
		t.Errorf("left behind: %v, %v", chains, err)
	}
	// What it has said is so.
	for family, is := range map[string]Refusing{FamilyNetdev: RefuseHere, FamilyBridge: RefuseBridge} {
		at := family + " t"
		err := c.sendAll("t", []string{"add table " + at, "add chain " + at + " c", "add rule " + at + " c reject with tcp reset"})
		switch {
		case how == is && err != nil:
			t.Errorf("family %s: %v", family, err)
		case how == RefuseSilent && err == nil, how == RefuseBridge && is == RefuseHere && err == nil:
			t.Errorf("family %s refuses, and it was said that it doesn't", family)
		}
	}
}

// An ordinary user explains a wall, too: who may not ask the kernel gets an answer all the same.
func TestWallRefusalUnprivileged(t *testing.T) {
	runtime.LockOSThread() // never unlocked: the thread ends with its capabilities
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&head, &none[0]); err != nil {
		t.Fatal(err)
	}
	if how, err := WallRefusal(); how != RefuseHere || err != nil {
		t.Errorf("got %q, %v, want %q", how, err, RefuseHere)
	}
}
