package command

import (
	"cmp"
	"fmt"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

// stepTable shows steps in the order of time. What a step waits for and what
// speaks for it are sentences: each has a line of its own.
func stepTable(steps []*pb.PlannedStep) table {
	t := table{header: []string{"WHEN", "ACTION", "KEY", "WHY", "WAITING FOR / EVIDENCE"}}
	for _, s := range steps {
		notes := stepNotes(s)
		t.add(moment(s.GetAt()), s.GetAction(), cmp.Or(s.GetKid(), fmt.Sprintf("serial %d", s.GetSerial())), s.GetReason(), notes[0])
		for _, note := range notes[1:] {
			t.add(" ", " ", " ", " ", note)
		}
	}
	return t
}

// stepNotes returns at least one line.
func stepNotes(s *pb.PlannedStep) []string {
	var notes []string
	for _, text := range s.GetWaitingFor() {
		notes = append(notes, "waiting: "+text)
	}
	for _, text := range s.GetEvidence() {
		notes = append(notes, "evidence: "+text)
	}
	if n := s.GetBrokenTokens(); n > 0 {
		notes = append(notes, fmt.Sprintf("breaks %d of %d live tokens", n, s.GetLiveTokens()))
	}
	if len(notes) == 0 {
		return []string{""}
	}
	return notes
}
