// Package kuma knows under which names and in which forms control planes of Kuma
// and Kong Mesh keep public keys and revocations, and what they choke on.
//
// A control plane keeps such things in secrets: resources of the type GlobalSecret,
// or of the type Secret in a mesh. On Kubernetes both are core Secrets in the
// namespace of the control plane.
package kuma
