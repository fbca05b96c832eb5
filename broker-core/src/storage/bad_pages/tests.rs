//! Which octets come back around a page that cannot be read, and when it is given up.

use super::super::fs::{read_full, write_full};
use super::super::sim_fs::{Fault, Operation, SimFs};
use super::*;

const PATH: &str = "/file";
const PAGES: usize = 400;
const LEN: usize = PAGES * 4096 - 1000;

/// A file in which every octet tells its page.
fn octets() -> Vec<u8> {
    let page = |at: usize| u8::try_from(at / 4096 % 255).unwrap() + 1;
    (0..LEN).map(page).collect()
}

fn disk() -> (SimFs, BadPages) {
    let fs = SimFs::new();
    fs.put(Path::new(PATH), octets());
    let pages = BadPages::new(Arc::new(fs.clone()));
    (fs, pages)
}

fn read(fs: &BadPages, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let file = fs.open(Path::new(PATH))?;
    let mut found = vec![0xFF; len];
    let read = read_full(&*file, offset, &mut found)?;
    found.truncate(read);
    Ok(found)
}

fn with_zeros(range: Range<usize>) -> Vec<u8> {
    let mut expected = octets();
    expected[range].fill(0);
    expected
}

#[test]
fn a_page_that_is_given_up_reads_as_zeros_and_its_neighbours_as_they_are() {
    for page in [0, 7, PAGES - 1] {
        let (fs, pages) = disk();
        fs.spoil(Path::new(PATH), page as u64 * 4096 + 99, u32::MAX);
        let zeros = page * 4096..LEN.min((page + 1) * 4096);
        let expected = with_zeros(zeros.clone());
        assert_eq!(read(&pages, 0, LEN + 5000).unwrap(), expected, "page {page}");
        assert_eq!(read(&pages, zeros.start as u64, 10).unwrap(), [0; 10]);
        let behind = zeros.end.saturating_sub(3);
        let there = &expected[behind..LEN.min(behind + 6)];
        assert_eq!(read(&pages, behind as u64, 6).unwrap(), there);
        let said = pages.given_up(Path::new(PATH), 0..u64::MAX).unwrap();
        assert_eq!(said, format!("the page at offset {} cannot be read", page * 4096));
        assert_eq!(pages.given_up(Path::new(PATH), 8192..8193), None);
    }
}

#[test]
fn several_pages_are_told_in_one_sentence() {
    let (fs, pages) = disk();
    for page in [3, 4, 9] {
        fs.spoil(Path::new(PATH), page * 4096, u32::MAX);
    }
    read(&pages, 0, LEN).unwrap();
    let said = pages.explain("bad".to_owned(), Path::new(PATH), 5 * 4096 - 1..u64::MAX);
    assert_eq!(said, "bad: 2 pages between offsets 16384 and 40960 cannot be read");
}

#[test]
fn an_error_that_passes_within_a_few_tries_costs_nothing() {
    let (fs, pages) = disk();
    // The read of the whole, and two of the page.
    fs.spoil(Path::new(PATH), 8192, 3);
    assert_eq!(read(&pages, 0, LEN).unwrap(), octets());
    assert_eq!(pages.given_up(Path::new(PATH), 0..u64::MAX), None);
    assert_eq!(read(&pages, 8192, 1).unwrap(), [3]);
}

#[test]
fn a_running_store_gives_a_page_up_after_half_a_minute_and_not_before() {
    let (fs, pages) = disk();
    pages.judge(Judgement::InTime);
    fs.spoil(Path::new(PATH), 8192, u32::MAX);
    fs.spoil(Path::new(PATH), 12288, u32::MAX);
    let mut waited = Duration::ZERO;
    let second = Duration::from_secs(1);
    let given_up = loop {
        let error = read(&pages, 0, LEN).unwrap_err();
        assert!(is_in_doubt(&error), "{error}");
        assert_eq!(read(&pages, 16384, 4).unwrap(), [5; 4], "the next page is none of it");
        let given_up = pages.try_again(second);
        waited += second;
        if !given_up.is_empty() {
            break given_up;
        }
    };
    // Both were found by the first read, so neither had to wait for the other.
    let page = |offset| GivenUp::Page(PathBuf::from(PATH), offset);
    assert_eq!(given_up, [page(8192), page(12288)]);
    assert_eq!(waited, TRY_EVERY * TRIES);
    assert_eq!(read(&pages, 0, LEN).unwrap(), with_zeros(8192..16384));
}

#[test]
fn a_page_in_doubt_is_not_read_but_when_its_turn_comes_and_is_there_again_then() {
    let (fs, pages) = disk();
    pages.judge(Judgement::InTime);
    fs.spoil(Path::new(PATH), 8192, 6);
    for _ in 0..100 {
        assert!(read(&pages, 8192, 4).is_err());
    }
    // Four of the six have been used up; a try each.
    for _ in 0..2 {
        assert_eq!(pages.try_again(TRY_EVERY), []);
        assert!(read(&pages, 8192, 4).is_err());
    }
    assert_eq!(pages.try_again(TRY_EVERY), []);
    assert_eq!(read(&pages, 8192, 4).unwrap(), [3; 4]);
}

#[test]
fn an_error_that_says_nothing_about_the_page_is_passed_on() {
    let faults = [Fault::OutOfFiles, Fault::Error(io::ErrorKind::PermissionDenied)];
    for fault in faults {
        let (fs, pages) = disk();
        fs.set_hook(move |call| (call.operation == Operation::Read).then_some(fault));
        let error = read(&pages, 0, LEN).unwrap_err();
        assert!(!is_in_doubt(&error) && !is_unreadable(&error), "{error}");
        fs.clear_hook();
        assert_eq!(read(&pages, 0, LEN).unwrap(), octets());
    }
}

#[test]
fn a_file_of_which_too_much_is_gone_is_not_read_around() {
    let (fs, pages) = disk();
    for page in 0..=BAD_PAGES_MAX as u64 {
        fs.spoil(Path::new(PATH), page * 4096, u32::MAX);
    }
    assert!(is_unreadable(&read(&pages, 0, LEN).unwrap_err()));
}

#[test]
fn what_is_written_over_a_bad_page_is_read_again_and_the_name_does_not_matter() {
    let (fs, pages) = disk();
    fs.spoil(Path::new(PATH), 8192, u32::MAX);
    let file = pages.open(Path::new(PATH)).unwrap();
    read(&pages, 0, LEN).unwrap();
    pages.rename(Path::new(PATH), Path::new("/other")).unwrap();
    assert!(pages.given_up(Path::new("/other"), 0..u64::MAX).is_some());
    assert_eq!(pages.given_up(Path::new(PATH), 0..u64::MAX), None);
    write_full(&*file, 8192, &[&[7; 4096]]).unwrap();
    assert_eq!(pages.given_up(Path::new("/other"), 0..u64::MAX), None);
    let mut found = [0; 4];
    read_full(&*file, 8192, &mut found).unwrap();
    assert_eq!(found, [7; 4]);
}

#[test]
fn a_file_that_is_gone_is_looked_for_for_half_a_minute_and_then_reads_as_empty() {
    let (fs, pages) = disk();
    pages.judge(Judgement::InTime);
    fs.lose(Path::new(PATH));
    for _ in 1..TRIES {
        assert!(is_in_doubt(&pages.open_gone(Path::new(PATH)).unwrap_err()));
        assert_eq!(pages.try_again(TRY_EVERY), []);
        assert!(!pages.is_gone(Path::new(PATH)));
    }
    assert_eq!(pages.try_again(TRY_EVERY), [GivenUp::File(PathBuf::from(PATH))]);
    assert!(!pages.is_gone(Path::new(PATH)), "not before its messages have been named");
    pages.give_up_file(Path::new(PATH));
    assert!(pages.is_gone(Path::new(PATH)));
    assert_eq!(pages.open_gone(Path::new(PATH)).unwrap().size().unwrap(), 0);
    assert_eq!(pages.try_again(TRY_EVERY * TRIES), [], "once");
}

#[test]
fn a_file_that_comes_back_or_cannot_be_opened_or_is_gone_with_its_directory_is_not_given_up() {
    let (fs, pages) = disk();
    pages.judge(Judgement::InTime);
    let long = TRY_EVERY * TRIES;
    assert!(pages.open_gone(Path::new(PATH)).is_err());
    // No tries for want of handles.
    fs.set_hook(|call| (call.operation == Operation::Open).then_some(Fault::OutOfFiles));
    (0..TRIES * 2).for_each(|_| assert_eq!(pages.try_again(long), []));
    fs.clear_hook();
    assert!(pages.open_gone(Path::new(PATH)).is_err());
    assert_eq!(pages.try_again(long), []);
    assert_eq!(read(&pages, 0, 4).unwrap(), [1; 4]);
    let elsewhere = Path::new("/no/such/directory/file");
    assert!(pages.open_gone(elsewhere).is_err());
    (0..TRIES * 2).for_each(|_| assert_eq!(pages.try_again(long), []));
}
