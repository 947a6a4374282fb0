//! The tokens by which a process outside speaks for an attempt.

use super::*;

#[test]
fn every_server_knows_the_tokens_of_every_other_server() {
    let place = Place::new();
    place.submit();
    let attempt = place.pull_one().attempt;
    let token = place.queue.attempt_token(attempt).unwrap();
    assert!(token.starts_with(&format!("{}-{}-", attempt.job, attempt.start)), "{token}");
    assert_eq!(token.splitn(3, '-').last().map(str::len), Some(22), "{token}");
    assert_eq!(place.queue.attempt_of(&token).unwrap(), Some(attempt));
    let other = place.another_queue();
    assert_eq!(other.attempt_of(&token).unwrap(), Some(attempt));
    assert_eq!(other.attempt_token(attempt).unwrap(), token);
}

#[test]
fn no_other_text_is_a_token() {
    let place = Place::new();
    let attempt = AttemptId { job: place.submit(), start: 7 };
    let token = place.queue.attempt_token(attempt).unwrap();
    let [id, start, code] = token.splitn(3, '-').collect::<Vec<_>>()[..] else { panic!("{token}") };
    let mut wrong = vec![
        String::new(),
        "-".to_owned(),
        "--".to_owned(),
        format!("{id}-{start}"),
        format!("{id}-{start}-"),
        format!("{}-{start}-{code}", id.parse::<u64>().unwrap() + 1),
        format!("{id}-8-{code}"),
        format!("{id}-07-{code}"),
        format!("0{token}"),
        format!("+{token}"),
        format!(" {token}"),
        format!("{token} "),
        format!("{token}\n"),
        format!("{token}="),
        format!("{token}A"),
        format!("{token}-"),
        format!("{id}-{start}-{}", code.to_uppercase() + "x"),
        format!("{id}-{start}-{}", "A".repeat(22)),
        format!("{id}-{start}-{}", "é".repeat(11)),
        format!("9007199254740993-{start}-{code}"),
        format!("18446744073709551616-{start}-{code}"),
        format!("{id}-18446744073709551616-{code}"),
        "x".repeat(100_000),
    ];
    wrong.extend((0..token.len()).map(|end| token[..end].to_owned()));
    // Each character of the code counts, and all of its bits.
    for at in 0..code.len() {
        for other in ['A', 'B', 'z', '0', '_', '-'] {
            let changed: String =
                code.chars().enumerate().map(|(n, c)| if n == at { other } else { c }).collect();
            if changed != code {
                wrong.push(format!("{id}-{start}-{changed}"));
            }
        }
    }
    for text in &wrong {
        assert_eq!(place.queue.attempt_of(text).unwrap(), None, "{text:?}");
    }
    assert_eq!(place.queue.attempt_of(&token).unwrap(), Some(attempt));
}

#[test]
fn the_secret_is_made_once_and_is_no_ones_to_guess() {
    let place = Place::new();
    let attempt = AttemptId { job: place.submit(), start: 1 };
    let token = place.queue.attempt_token(attempt).unwrap();
    let secret: Vec<u8> = place.redis("GET", "secret", &[]);
    assert!(secret.len() >= 16, "{} bytes", secret.len());
    assert!(!token.as_bytes().windows(8).any(|part| secret.windows(8).any(|other| other == part)));
    let elsewhere = Place::new();
    assert_ne!(
        elsewhere.queue.attempt_token(attempt).unwrap(),
        token,
        "each namespace has a secret of its own"
    );
    assert_eq!(elsewhere.queue.attempt_of(&token).unwrap(), None);
    // Two servers that ask at the same time.
    let fresh = Place::new();
    let queues: Vec<_> = (0..4).map(|_| fresh.another_queue()).collect();
    let tokens: Vec<String> = std::thread::scope(|scope| {
        let asked: Vec<_> =
            queues.iter().map(|queue| scope.spawn(move || queue.attempt_token(attempt).unwrap())).collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    assert!(tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
}

#[test]
fn the_secret_is_made_while_redis_is_full_too() {
    let place = Place::alone();
    let attempt = AttemptId { job: place.submit(), start: 1 };
    place.raw(&["CONFIG SET maxmemory 1"]);
    let token = place.queue.attempt_token(attempt).unwrap();
    place.raw(&["CONFIG SET maxmemory 0"]);
    assert_eq!(place.another_queue().attempt_token(attempt).unwrap(), token);
}

#[test]
fn tokens_of_a_redis_that_lost_its_data_are_no_tokens_any_more() {
    let place = Place::alone();
    let attempt = AttemptId { job: place.submit(), start: 1 };
    let token = place.queue.attempt_token(attempt).unwrap();
    place.raw(&["FLUSHALL"]);
    // This server may know the old secret, and an attempt that is not there is stale.
    assert_eq!(place.reports(attempt, progress(0.5, "")), Reported::Stale);
    assert_eq!(place.another_queue().attempt_of(&token).unwrap(), None);
}
