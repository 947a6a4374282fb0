//! The names of the threads that work for one queue.

/// The longest name of a thread in bytes: the system cuts longer names.
const LONGEST_THREAD_NAME: usize = 15;

/// The name of a thread: a prefix, as much of the queue's name as fits, and a suffix. A name that is cut gets the number of
/// the queue too, so that queues with different numbers have threads with different names.
pub fn thread_name(prefix: &str, queue: &str, number: usize, suffix: &str) -> String {
    let room = LONGEST_THREAD_NAME - prefix.len() - suffix.len();
    if queue.len() <= room {
        return format!("{prefix}{queue}{suffix}");
    }
    // `~` is not allowed in names of queues.
    let number = format!("~{number}");
    format!("{prefix}{}{number}{suffix}", &queue[..room - number.len()])
}

/// The names of the fetchers of each queue.
pub fn fetcher_names(queues: &[String], fetchers: usize) -> Vec<Vec<String>> {
    let names = queues.iter().enumerate().map(|(number, queue)| {
        let name = |fetcher: usize| {
            // `/` is not allowed in names of queues.
            let suffix = if fetchers > 1 { format!("/{fetcher}") } else { String::new() };
            thread_name("fetch-", queue, number, &suffix)
        };
        (0..fetchers).map(name).collect()
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_of_a_queue_has_another_name() {
        let queues = ["default", "a", "reports.eu-north", "reports.eu-south", "a.1"].map(str::to_owned);
        for fetchers in [1, 16] {
            let names: Vec<String> = fetcher_names(&queues, fetchers).concat();
            assert_eq!(names.len(), queues.len() * fetchers);
            assert!(names.iter().all(|name| name.len() <= LONGEST_THREAD_NAME), "{names:?}");
            assert_eq!(
                names.iter().collect::<std::collections::HashSet<_>>().len(),
                names.len(),
                "{names:?}"
            );
        }
        assert_eq!(fetcher_names(&queues, 1).concat()[..3], ["fetch-default", "fetch-a", "fetch-reports~2"]);
        assert_eq!(fetcher_names(&queues, 2)[2], ["fetch-repor~2/0", "fetch-repor~2/1"]);
        assert_eq!(thread_name("puller-", "reports.eu-north", 31, ""), "puller-repor~31");
    }
}
