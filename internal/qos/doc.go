// Package qos marks what the box sends and counts on its interfaces what really
// left with a mark.
//
// Two things do it. Marks sets the DSCP of RFC 2474 on our own sockets, which
// works without privilege. Egress installs a tree of traffic classes on each
// configured interface, reads it back after writing, and takes from the
// counters of its classes the Share of voice packets that left with EF. What
// cannot be installed is reported in a State with the reason; nothing is
// pretended.
//
// Code points follow RFC 4594 (voice EF, signalling AF41 unless configured).
// PlanFor is pure and prints as text; Kernel is the few netlink calls that carry
// a Plan out, Netlink its implementation.
//
// Shaping and the number of calls a link carries come later (the tree has its
// root class ready); marking packets of others, and VLANs, are left to packages
// further on. See docs/decisions/marks.md.
package qos
