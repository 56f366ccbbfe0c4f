//! What both programs start with and end by: the threads they run on.

use std::future::Future;
use std::io;
use std::num::NonZero;

/// Threads that serve connections. Both programs wait for others most of the time.
const WORKERS_MAX: usize = 4;
/// Stack of each thread, in octets. Sessions live on the heap.
const STACK_OCTETS: usize = 1024 * 1024;

/// Runs `program` to its end on threads of this name, with at most `blocking_max` more for blocking work.
/// What the program gave up on in its drain is dropped, not waited for.
pub fn run<F: Future>(name: &str, blocking_max: usize, program: F) -> io::Result<F::Output> {
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get).min(WORKERS_MAX);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(blocking_max)
        .thread_stack_size(STACK_OCTETS)
        .thread_name(name)
        .enable_all()
        .build()?;
    let done = runtime.block_on(program);
    runtime.shutdown_background();
    Ok(done)
}
