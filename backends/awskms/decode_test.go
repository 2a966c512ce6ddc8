package awskms_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/go-viper/mapstructure/v2"

	"github.com/zonemint/zonemint/backends/awskms"
)

// A configuration file's settings fit the fields, above all the one that tells "0"
// from "not said".
func TestSettingsAreDecoded(t *testing.T) {
	var o awskms.Options
	dec, err := mapstructure.NewDecoder(&mapstructure.DecoderConfig{
		Result: &o, TagName: "setting", ErrorUnused: true, MatchName: func(key, field string) bool { return key == field },
		DecodeHook: mapstructure.ComposeDecodeHookFunc(mapstructure.StringToTimeDurationHookFunc(), mapstructure.TextUnmarshallerHookFunc()),
	})
	if err != nil {
		t.Fatal(err)
	}
	err = dec.Decode(map[string]any{
		"region": "eu-central-1", "endpoint": "https://kms", "profile": "mesh", "key_policy_file": "policy.json", "tags": map[string]any{"team": "mesh"},
		"alias_prefix": "mesh/", "multi_region": true, "deletion_window_days": 7, "min_idle": "0s", "skip_unreadable_keys": true,
		"consistency_window": "20s", "request_timeout": "5s", "max_signatures_per_second": 500, "max_waiting": 64,
	})
	want := awskms.Options{
		Region: "eu-central-1", Endpoint: "https://kms", Profile: "mesh", KeyPolicyFile: "policy.json", Tags: map[string]string{"team": "mesh"},
		AliasPrefix: "mesh/", MultiRegion: true, DeletionWindowDays: 7, MinIdle: new(time.Duration(0)), SkipUnreadableKeys: true,
		ConsistencyWindow: 20 * time.Second, RequestTimeout: 5 * time.Second, MaxSignaturesPerSecond: 500, MaxWaiting: 64,
	}
	if err != nil || !reflect.DeepEqual(o, want) {
		t.Errorf("%+v, %v", o, err)
	}
}
