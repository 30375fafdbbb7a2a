//! Writers that go on while a workload is broken, and a line a second of what they see.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::place::Place;

/// What all writers share.
pub(super) struct Load {
    /// How many writes each writer has had acknowledged: its numbers from 0 up to this one are promised.
    acknowledged: Vec<AtomicU64>,
    /// Times that a writer lost its connection, or found none.
    interrupted: AtomicU64,
    over: AtomicBool,
    /// When a write was acknowledged last, and the longest time between two.
    silence: Mutex<(Instant, Duration)>,
    /// What is being done to the workload now.
    doing: Mutex<&'static str>,
}

/// One thing that is done to a workload; returns when the workload shows that it was done.
pub(super) type Break<'a> = (&'static str, Box<dyn Fn() -> Result<(), String> + 'a>);

impl Load {
    pub(super) fn new(writers: usize) -> Load {
        Load {
            acknowledged: (0..writers).map(|_| AtomicU64::new(0)).collect(),
            interrupted: AtomicU64::new(0),
            over: AtomicBool::new(false),
            silence: Mutex::new((Instant::now(), Duration::ZERO)),
            doing: Mutex::new("nothing"),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// One more write of this writer is acknowledged; its next number.
    pub(super) fn acknowledge(&self, writer: usize) {
        self.acknowledged[writer].fetch_add(1, Ordering::SeqCst);
        if let Ok(mut silence) = self.silence.lock() {
            let now = Instant::now();
            // Before the first there was nobody to be silent.
            if self.total() > 1 {
                silence.1 = silence.1.max(now - silence.0);
            }
            silence.0 = now;
        }
    }

    /// The longest time in which no write was acknowledged.
    pub(super) fn longest_silence(&self) -> Duration {
        self.silence
            .lock()
            .map_or(Duration::ZERO, |silence| silence.1)
    }

    /// The number of this writer's next write.
    pub(super) fn next(&self, writer: usize) -> u64 {
        self.acknowledged[writer].load(Ordering::SeqCst)
    }

    pub(super) fn interrupt(&self) {
        self.interrupted.fetch_add(1, Ordering::SeqCst);
    }

    /// How often writers had to connect again.
    pub(super) fn interruptions(&self) -> u64 {
        self.interrupted.load(Ordering::SeqCst)
    }

    /// All that was acknowledged.
    pub(super) fn total(&self) -> u64 {
        (0..self.acknowledged.len())
            .map(|writer| self.next(writer))
            .sum()
    }

    /// Runs the writers, does one thing after another to the set, each until it is at rest again, and goes on writing until
    /// `least` writes are acknowledged. Gives how long each took.
    pub(super) fn run(
        &self,
        place: &Place,
        set: &str,
        least: u64,
        writer: impl Fn(usize) + Sync,
        breaks: &[Break<'_>],
    ) -> Result<Vec<(&'static str, Duration)>, String> {
        std::thread::scope(|scope| {
            for number in 0..self.acknowledged.len() {
                let writer = &writer;
                scope.spawn(move || writer(number));
            }
            scope.spawn(|| self.tell(place, set));
            let done = self.go_through(place, set, least, breaks);
            self.over.store(true, Ordering::SeqCst);
            done
        })
    }

    fn go_through(
        &self,
        place: &Place,
        set: &str,
        least: u64,
        breaks: &[Break<'_>],
    ) -> Result<Vec<(&'static str, Duration)>, String> {
        let more = |than: u64| {
            super::place::until("writes are acknowledged again", || self.total() > than)
        };
        let mut took = Vec::new();
        for (what, act) in breaks {
            // Each finds the writers at work, and is over when they are again.
            more(self.total() + 100)?;
            *self.doing.lock().map_err(|error| error.to_string())? = what;
            let began = Instant::now();
            act()
                .and_then(|()| place.until_rest(set))
                .and_then(|()| more(self.total()))
                .map_err(|error| format!("{what}: {error}"))?;
            took.push((*what, began.elapsed()));
        }
        *self.doing.lock().map_err(|error| error.to_string())? = "nothing";
        more(least)?;
        Ok(took)
    }

    /// A line a second until it is over.
    fn tell(&self, place: &Place, set: &str) {
        let began = Instant::now();
        let mut before = 0;
        while !self.is_over() {
            std::thread::sleep(Duration::from_secs(1));
            let total = self.total();
            let ready = place
                .progress(set)
                .map_or_else(|_| "no answer".to_owned(), |(ready, _)| ready);
            let doing = self.doing.lock().map_or("?", |doing| *doing);
            println!(
                "{:4} s  {total:7} acknowledged, {:5}/s  {set} {ready}  {doing}",
                began.elapsed().as_secs(),
                total - before
            );
            before = total;
        }
    }
}
