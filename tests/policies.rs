//! `--endpoint-policy` in front of real clusters: where calls land, as the members themselves count
//! them, and what happens to one that does worse than the others.

mod support;

#[path = "policies/outliers.rs"]
mod outliers;
#[path = "policies/scene.rs"]
mod scene;
#[path = "policies/spread.rs"]
mod spread;
