//! Tests of `--endpoint-policy` in front of real clusters: the distribution of calls, by the
//! members' own count, and the ejection of a member that performs worse than the others.

mod support;

#[path = "policies/distribution.rs"]
mod distribution;
#[path = "policies/outliers.rs"]
mod outliers;
#[path = "policies/scene.rs"]
mod scene;
