package netcfg

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeKernel is a kernel whose state and notifications the test makes. Faults
// set on it are used up one by one.
type fakeKernel struct {
	mu        sync.Mutex
	state     State
	subscribe []error // faults of the next calls
	read      []error
	changes   chan Change
	lose      context.CancelCauseFunc
	opened    int
}

func (k *fakeKernel) Read() (State, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.read) > 0 {
		err := k.read[0]
		k.read = k.read[1:]
		return State{}, err
	}
	return k.state, nil
}

func (k *fakeKernel) Subscribe(ctx context.Context) (<-chan Change, func() error, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.opened++
	if len(k.subscribe) > 0 {
		err := k.subscribe[0]
		k.subscribe = k.subscribe[1:]
		return nil, nil, err
	}
	ctx, k.lose = context.WithCancelCause(ctx)
	in, out := make(chan Change), make(chan Change)
	k.changes = in
	go func() {
		defer close(out)
		for {
			select {
			case c := <-in:
				select {
				case out <- c:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, func() error { return context.Cause(ctx) }, nil
}

func (k *fakeKernel) tell(c Change) { k.changes <- c }

// start runs a Watch until the test ends.
func start(t *testing.T, k Kernel, names ...string) (*Watch, func()) {
	t.Helper()
	w := New(Options{Kernel: k, Interfaces: names})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	synctest.Wait()
	return w, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		if _, open := <-w.Events(); open {
			t.Error("an event after Run")
		}
	}
}

func next(t *testing.T, w *Watch, want Event) {
	t.Helper()
	select {
	case got := <-w.Events():
		if got != want {
			t.Errorf("event %v %v %v, want %v %v %v", got.Kind, got.Interface, got.Addr, want.Kind, want.Interface, want.Addr)
		}
	case <-time.After(time.Hour):
		t.Errorf("no event, want %v %v", want.Kind, want.Interface)
	}
}

func TestWatchFollowsTheKernel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{state: base}
		w, stop := start(t, k, "lan0")
		defer stop()
		if l := w.Links(); len(l) != 1 || l[0].Name != "lan0" || !l[0].Up || len(l[0].Addresses) != 1 || l[0].Addresses[0] != ours {
			t.Errorf("links %+v", l)
		}
		k.tell(link(2, "lan0", false))
		next(t, w, ev(LinkDown, "lan0"))
		if w.Links()[0].Up {
			t.Error("the snapshot still has the link up")
		}
		k.tell(neighbour(2, NeighbourBad))
		next(t, w, ev(NeighbourFailed, "lan0", gateway))
	})
}

// TestLostNotificationsAreMadeGood has the socket overflow while the link goes
// down: the event comes from the reading afterwards.
func TestLostNotificationsAreMadeGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{state: base}
		w, stop := start(t, k, "lan0")
		defer stop()
		k.mu.Lock()
		k.state = State{Links: []Link{{Index: 2, Name: "lan0"}}, Addresses: base.Addresses, Neighbours: base.Neighbours}
		// The first tries fail, each in its way.
		k.subscribe = []error{errors.New("no buffer space"), errors.New("no buffer space")}
		k.read = []error{errors.New("dump interrupted")}
		k.mu.Unlock()
		began := time.Now()
		k.lose(errors.New("ENOBUFS"))
		next(t, w, ev(LinkDown, "lan0"))
		if took := time.Since(began); took != 1500*time.Millisecond { // 100 + 200 + 400 + 800 ms
			t.Errorf("the state was read anew after %v", took)
		}
		if w.Resyncs() != 4 || k.opened != 5 {
			t.Errorf("%d resyncs, %d subscriptions", w.Resyncs(), k.opened)
		}
		// And it follows again.
		k.tell(link(2, "lan0", true))
		next(t, w, ev(LinkUp, "lan0"))

		// A later loss does not wait as long as the last failure did.
		began = time.Now()
		k.mu.Lock()
		k.state = base
		k.mu.Unlock()
		k.lose(errors.New("ENOBUFS"))
		time.Sleep(150 * time.Millisecond)
		synctest.Wait()
		if w.Resyncs() != 5 || k.opened != 6 {
			t.Errorf("%v after a loss: %d resyncs, %d subscriptions", time.Since(began), w.Resyncs(), k.opened)
		}
	})
}

func TestLateReaderGetsTheNewestOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{state: base}
		w, stop := start(t, k, "lan0")
		defer stop()
		for range 500 {
			k.tell(link(2, "lan0", false))
			k.tell(neighbour(2, NeighbourBad))
			k.tell(link(2, "lan0", true))
			k.tell(neighbour(2, NeighbourGood))
		}
		k.tell(link(2, "lan0", false))
		synctest.Wait()
		next(t, w, ev(NeighbourReachable, "lan0", gateway))
		next(t, w, ev(LinkDown, "lan0"))
	})
}

// TestEventsWaitOutALoss has an event unread when the subscription is lost.
func TestEventsWaitOutALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{state: base}
		w, stop := start(t, k, "lan0")
		defer stop()
		k.tell(link(2, "lan0", false))
		synctest.Wait()
		k.mu.Lock()
		k.state.Links = []Link{{Index: 2, Name: "lan0"}}
		k.mu.Unlock()
		k.lose(errors.New("ENOBUFS"))
		synctest.Wait()
		next(t, w, ev(LinkDown, "lan0"))
		time.Sleep(time.Second)
	})
}

func TestKindsHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for k := LinkDown; k <= AddressNew; k++ {
		if seen[k.String()] || k.String() == "" {
			t.Errorf("kind %d is called %q", k, k)
		}
		seen[k.String()] = true
	}
	if Kind(0).String() != "kind-0" || Kind(99).String() != "kind-99" {
		t.Error("unknown kinds")
	}
}
