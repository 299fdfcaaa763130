package qos

// Kernel is the few calls that a Plan needs. Read gives the root discipline of
// an interface and, if it is ours, its classes with counters and its filters;
// Do carries out one step. Both are safe for concurrent use if the
// implementation says so; Egress calls them one at a time.
type Kernel interface {
	Read(name string) (Tree, error)
	Do(index int, s Step) error
}
