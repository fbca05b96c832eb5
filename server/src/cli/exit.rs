//! Exit codes, as in sysexits(3).

/// A store is damaged; with `warren store repair`, it was. Not of sysexits(3), but of fsck(8).
pub const DAMAGED: u8 = 1;
/// The command line makes no sense.
pub const USAGE: u8 = 64;
/// Data that were given make no sense.
pub const DATA: u8 = 65;
/// There is no such user.
pub const NO_USER: u8 = 67;
/// The broker cannot be reached, or says no.
pub const UNAVAILABLE: u8 = 69;
/// A fault of the broker itself.
pub const SOFTWARE: u8 = 70;
/// The operating system refuses: an address is taken, a limit is reached.
pub const OS_ERROR: u8 = 71;
/// A file or directory cannot be made.
pub const CANNOT_CREATE: u8 = 73;
/// Reading or writing failed.
pub const IO_ERROR: u8 = 74;
/// It may work later.
pub const TEMPORARY: u8 = 75;
/// Somebody else is to do it.
pub const NO_PERMISSION: u8 = 77;
/// The settings are wrong.
pub const CONFIG: u8 = 78;
