//! Accounts, sessions, rosters, joining and the page, over real HTTP.

mod page;
mod people;
mod sessions;
mod site;
mod ways_in;
