package awskmsdouble

import "time"

func enableKey(s *Server, body []byte) (any, *Exception) {
	return nil, s.change(body, "kms:EnableKey", Enabled)
}

func disableKey(s *Server, body []byte) (any, *Exception) {
	return nil, s.change(body, "kms:DisableKey", Disabled)
}

// change sets the state of a key that does not wait for its deletion.
func (s *Server) change(body []byte, action, to string) *Exception {
	var in idRequest
	if e := decode(body, &in); e != nil {
		return e
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k, e := s.find(action, in.KeyId, false)
	if e != nil {
		return e
	}
	if e := k.refuseUnless(s.opts.Now(), Enabled, Disabled); e != nil {
		return e
	}
	k.state = to
	return nil
}

func cancelKeyDeletion(s *Server, body []byte) (any, *Exception) {
	var in idRequest
	if e := decode(body, &in); e != nil {
		return nil, e
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k, e := s.find("kms:CancelKeyDeletion", in.KeyId, false)
	if e != nil {
		return nil, e
	}
	if k.state != PendingDeletion && k.state != PendingReplicaDeletion {
		return nil, refuse("KMSInvalidStateException", "%s is not pending deletion.", k.arn)
	}
	k.state = Disabled
	return map[string]any{"KeyId": k.arn}, nil
}

type deletionRequest struct {
	KeyId               string
	PendingWindowInDays *int
}

func scheduleKeyDeletion(s *Server, body []byte) (any, *Exception) {
	const least, most = 7, 30
	var in deletionRequest
	if e := decode(body, &in); e != nil {
		return nil, e
	}
	days := most
	if in.PendingWindowInDays != nil {
		days = *in.PendingWindowInDays
	}
	if days < least {
		return nil, invalid(days, "pendingWindowInDays", "have value greater than or equal to 7")
	}
	if days > most {
		return nil, invalid(days, "pendingWindowInDays", "have value less than or equal to 30")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k, e := s.find("kms:ScheduleKeyDeletion", in.KeyId, false)
	if e != nil {
		return nil, e
	}
	if e := k.refuseUnless(s.opts.Now(), Enabled, Disabled); e != nil {
		return nil, e
	}
	if len(k.replicas) > 0 { // the waiting period begins when they are gone
		k.state = PendingReplicaDeletion
		return map[string]any{"KeyId": k.arn, "KeyState": k.state, "PendingWindowInDays": days}, nil
	}
	k.state, k.deletion = PendingDeletion, s.opts.Now().Add(time.Duration(days)*24*time.Hour)
	return map[string]any{"KeyId": k.arn, "KeyState": PendingDeletion, "DeletionDate": timestamp(k.deletion), "PendingWindowInDays": days}, nil
}
