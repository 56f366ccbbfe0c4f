//! How the program is linked. A position-independent program lists every place that its loader fills in; packed, that
//! list takes a thirtieth of the memory, all of which stays resident.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = |part: &str| std::env::var(format!("CARGO_CFG_TARGET_{part}")).unwrap_or_default();
    // musl's loader knows it since 1.2.4, glibc's since 2.36; the linker of an older system leaves it unpacked.
    if target("OS") == "linux" && target("ENV") == "gnu" {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
