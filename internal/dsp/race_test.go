//go:build race

package dsp

// raceDetector makes the longest tests take every fourth case: the detector of
// races slows arithmetic tenfold and finds nothing in it.
const raceDetector = true
