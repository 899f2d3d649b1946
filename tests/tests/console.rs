//! `/console` in a browser, over a running server.

use graft_tests::browser::Browser;
use graft_tests::fixture::House;
use graft_tests::fixture_base::table;
use graft_tests::server::Server;

/// A label that would do something where it was taken for markup.
const HOSTILE: &str = "<img src=x onerror=document.title='run'>";

/// Two adapters, one of them with the label.
fn house() -> Option<House> {
    let house = House::new()?;
    house.write("hostile.csv", table(0, 60).replace("fruit", HOSTILE));
    for (name, method) in [("one", "lora"), ("two", "linear-probe")] {
        let line = "train --base base --objective classification --text text --label label --threads 1 --json --lr 0.02";
        let line = format!("{line} --data hostile.csv --epochs 6 --method {method} --out adapters/{name}");
        house.run(&line).succeeded();
    }
    Some(house)
}

fn open(browser: &mut Browser, server: &Server) {
    browser.open(&format!("http://{}/console", server.address));
    browser.wait("document.readyState === 'complete' && document.getElementById('status')");
}

#[test]
fn the_console_lists_adapters_and_shows_their_answers_side_by_side() {
    let (Some(house), Some(mut browser)) = (house(), Browser::start()) else { return };
    let server = house.server("--adapters adapters --base-name tiny", &[]);
    open(&mut browser, &server);
    browser.wait("document.querySelectorAll('#rows tr').length === 3");
    let names =
        browser.value("[...document.querySelectorAll('#rows input')].map((i) => i.dataset.name).join()");
    assert_eq!(names, "tiny,one,two");
    let row = browser.value("document.querySelectorAll('#rows tr')[1].innerText");
    assert!(row.as_str().is_some_and(|r| r.contains("lora") && r.contains("KiB")), "{row}");

    // Without a mouse: the first two adapters are ticked, the base comes with the arrows and a space.
    browser.press("ArrowDown", 0);
    browser.press(" ", 0);
    browser.press("t", 0);
    browser.wait("document.activeElement.id === 'text'");
    browser.write("my apple");
    browser.press("Enter", 2);
    browser.wait("document.querySelectorAll('.answer .foot').length === 3");
    let cards = browser.value("[...document.querySelectorAll('.answer')].map((a) => a.innerText)");
    let cards: Vec<&str> = cards.as_array().into_iter().flatten().filter_map(|c| c.as_str()).collect();
    for (card, name) in cards.iter().zip(["tiny", "one", "two"]) {
        assert!(card.starts_with(name), "{cards:?}");
    }
    assert!(cards[0].contains("vector of 32 numbers"), "{cards:?}");
    for card in &cards[1..] {
        assert!(card.contains(HOSTILE) && card.contains("bird") && card.contains("tool"), "{cards:?}");
    }
    assert_eq!(browser.value("document.images.length"), 0);
    assert_eq!(browser.value("document.title"), "Graft");

    browser.wait("document.querySelectorAll('.tile .curve[d^=M]').length >= 6");
    browser.wait(
        "[...document.querySelectorAll('#rows tr')].every((r) => r.cells[9].innerText.includes('ago'))",
    );
    assert!(browser.faults.is_empty(), "{:?}", browser.faults);

    drop(server);
    browser.wait("document.getElementById('status').dataset.state === 'gone'");
    browser.wait("document.getElementById('notice').innerText.includes('does not answer')");
}

#[test]
fn a_key_shows_what_it_opens_and_the_page_itself_nothing() {
    let (Some(house), Some(mut browser)) = (house(), Browser::start()) else { return };
    house.write("keys.toml", "admin = 'root'\nall = 'everyone'\n[adapters]\ntwo = ['tenant']\n");
    let server = house.server("--adapters adapters --set keys_file=keys.toml", &[]);
    for path in ["/console", "/console/app.js", "/console/style.css"] {
        let page = server.ask("GET", path, &[], "");
        assert_eq!(page.status, 200);
        assert!(page.header("content-security-policy").starts_with("default-src 'none'"), "{page:?}");
        assert!(
            !page.body.contains("http://") || path == "/console/app.js" || page.body.contains("www.w3.org")
        );
    }
    assert_eq!(server.ask("GET", "/console/state", &[], "").status, 401);
    open(&mut browser, &server);
    browser.wait("document.getElementById('status').dataset.state === 'gone'");
    browser.wait("document.activeElement.id === 'key'");
    for (key, rows, curves) in [("tenant", 1, false), ("everyone", 2, false), ("root", 3, true)] {
        browser.value("document.getElementById('key').select()");
        browser.write(key);
        browser.press("Enter", 0);
        browser.wait(&format!("document.querySelectorAll('#rows tr').length === {rows}"));
        browser.wait(&format!("document.getElementById('tiles').hidden === {}", !curves));
    }
    assert_eq!(browser.value("sessionStorage.getItem('graft.key')"), "root");
    assert_eq!(browser.value("[localStorage.length, document.cookie].join()"), "0,");
    assert!(browser.faults.is_empty(), "{:?}", browser.faults);
}

#[test]
fn a_base_without_adapters_can_be_tried() {
    let (Some(house), Some(mut browser)) = (House::new(), Browser::start()) else { return };
    let server = house.server("--base-name tiny", &[]);
    open(&mut browser, &server);
    browser.wait("document.getElementById('more').innerText.includes('There are no adapters')");
    browser.press("ArrowDown", 0);
    browser.press(" ", 0);
    browser.press("t", 0);
    browser.write("my apple");
    browser.press("Enter", 2);
    browser.wait("document.querySelectorAll('.answer .vector').length === 1");
    assert!(browser.faults.is_empty(), "{:?}", browser.faults);
}
