//! Values of one kind that come and go in thousands: in pages of our own, several to a page, so that after a burst their
//! memory goes back to the kernel, which the heap keeps as long as one value at its end is alive.
//!
//! A stock belongs to one thread. A page is a small buffer's block with a head that says which places are taken; a value
//! finds it by its own address.

use std::{
    cell::{Cell, RefCell},
    fmt,
    marker::PhantomData,
    ops::{Deref, DerefMut},
    ptr::{self, NonNull},
    rc::Rc,
    sync::Arc,
};

use super::{
    Overflow, Tier,
    budget::{Rank, Share},
    region::Block,
};
use crate::metrics::Holder;

/// Bytes of a page, which also begins at a multiple of it.
const PAGE_BYTES: usize = Tier::Small.bytes();

/// Where values of one kind are put.
#[derive(Debug)]
pub struct Stock<T>(Rc<Inner<T>>);

/// A value in a stock; its place is free when it is dropped.
pub struct Stocked<T> {
    value: NonNull<T>,
    /// It owns a `T`, and stays on its thread.
    owns: PhantomData<(T, Rc<()>)>,
}

#[derive(Debug)]
struct Inner<T> {
    share: Rc<Share>,
    overflow: Arc<Overflow>,
    holder: Holder,
    /// What each page counts for.
    page_bytes: usize,
    /// Pages with a free place. A full one is known to its values alone.
    open: RefCell<Vec<NonNull<Head<T>>>>,
    /// Those of them that hold no value, and the fewest there were since the last decay.
    empty: Cell<usize>,
    unused: Cell<usize>,
    empty_max: Cell<usize>,
}

/// What a page begins with.
struct Head<T> {
    stock: Rc<Inner<T>>,
    /// The memory that this lies in.
    block: Block,
    /// A bit for each place that is taken.
    taken: u32,
}

impl<T> Stock<T> {
    /// Values of one page.
    pub const PLACES: usize = {
        let places = (PAGE_BYTES - Self::FIRST) / size_of::<T>();
        assert!(places >= 1 && places <= 32 && align_of::<T>() <= 64);
        places
    };
    const FIRST: usize = size_of::<Head<T>>().next_multiple_of(64);
    const FULL: u32 = (1_u64 << Self::PLACES).wrapping_sub(1) as u32;

    /// An empty stock. Each place counts for `holder`, taken or not, as `value_bytes`: what a value holds beside its place
    /// may be contained in that. So many pages stay without a value in them.
    pub fn new(
        holder: Holder,
        value_bytes: usize,
        empty_max: usize,
        share: &Rc<Share>,
        overflow: &Arc<Overflow>,
    ) -> Self {
        Stock(Rc::new(Inner {
            share: Rc::clone(share),
            overflow: Arc::clone(overflow),
            holder,
            page_bytes: (Self::PLACES * value_bytes).max(PAGE_BYTES),
            open: RefCell::default(),
            empty: Cell::new(0),
            unused: Cell::new(0),
            empty_max: Cell::new(empty_max),
        }))
    }

    /// Puts a value into the stock; `None`, and the value is dropped, when there is no memory for another page.
    pub fn put(&self, value: T, rank: Rank) -> Option<Stocked<T>> {
        let last = self.0.open.borrow().last().copied();
        let mut head = match last {
            Some(head) => head,
            None => self.add_page(rank)?,
        };
        // SAFETY: a page in `open` is mapped and its head initialised; heads are touched here and in `drop` of a value
        // only, on this thread, and neither calls out while it holds this reference.
        let page = unsafe { head.as_mut() };
        if page.taken == 0 {
            self.0.empty.set(self.0.empty.get() - 1);
            self.0.unused.set(self.0.unused.get().min(self.0.empty.get()));
        }
        let place = page.taken.trailing_ones();
        page.taken |= 1 << place;
        if page.taken == Self::FULL {
            self.0.open.borrow_mut().pop();
        }
        // SAFETY: `place` is below `PLACES`, because the page was not full, so the place lies in the page.
        let address = unsafe { head.cast::<u8>().add(Self::FIRST + place as usize * size_of::<T>()) };
        let value_at = address.cast::<T>();
        // SAFETY: the place is aligned (a page to 4096, `FIRST` to 64, and a size is a multiple of its alignment) and free.
        unsafe { value_at.write(value) };
        Some(Stocked { value: value_at, owns: PhantomData })
    }

    /// Gives up half of the empty pages that nobody has needed since this was last done.
    pub fn decay(&self) {
        let keep = self.0.empty.get() - self.0.unused.get().div_ceil(2).min(self.0.empty.get());
        self.keep_empty(keep);
        self.0.unused.set(self.0.empty.get());
    }

    /// Gives up the empty pages beyond `count`.
    pub fn keep_empty(&self, count: usize) {
        while self.0.empty.get() > count {
            let place = self.0.open.borrow().iter().position(|head| {
                // SAFETY: as in `put`.
                unsafe { head.as_ref() }.taken == 0
            });
            let Some(place) = place else { return };
            let head = self.0.open.borrow_mut().swap_remove(place);
            // SAFETY: it has just left the list, and holds no value.
            unsafe { Inner::release(head) };
        }
    }

    /// Whether there is no empty page.
    pub fn is_empty(&self) -> bool {
        self.0.empty.get() == 0
    }

    fn add_page(&self, rank: Rank) -> Option<NonNull<Head<T>>> {
        if !self.0.share.take(self.0.holder, self.0.page_bytes, rank) {
            return None;
        }
        let Some(mut block) = self.0.overflow.make(Tier::Small) else {
            self.0.share.give_back(self.0.holder, self.0.page_bytes);
            return None;
        };
        let head = NonNull::from(&mut *block).cast::<Head<T>>();
        debug_assert_eq!(head.addr().get() % PAGE_BYTES, 0, "a small block is a page");
        let page = Head { stock: Rc::clone(&self.0), block, taken: 0 };
        // SAFETY: the block's first bytes are ours, aligned to a page, and large enough by `PLACES`. The block moves into
        // the memory that it owns, from where only `release` takes it.
        unsafe { head.write(page) };
        self.0.open.borrow_mut().push(head);
        self.0.empty.set(self.0.empty.get() + 1);
        Some(head)
    }
}

impl<T> Inner<T> {
    /// Gives a page's memory back.
    ///
    /// # Safety
    /// The page holds no value and is in no list; nobody uses it afterwards.
    unsafe fn release(head: NonNull<Head<T>>) {
        // SAFETY: the head is initialised, and is not read again.
        let Head { stock, block, .. } = unsafe { head.read() };
        stock.empty.set(stock.empty.get() - 1);
        stock.unused.set(stock.unused.get().min(stock.empty.get()));
        stock.overflow.discard(Tier::Small, block);
        stock.share.give_back(stock.holder, stock.page_bytes);
    }
}

impl<T> Drop for Stock<T> {
    /// Pages hold the stock, so the empty ones go now, and the others with their last value.
    fn drop(&mut self) {
        self.0.empty_max.set(0);
        self.keep_empty(0);
    }
}

impl<T> Deref for Stocked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: `put` wrote a value here, which stays until this is dropped, and whose only owner this is.
        unsafe { self.value.as_ref() }
    }
}

impl<T> DerefMut for Stocked<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; `&mut self` makes it the only reference.
        unsafe { self.value.as_mut() }
    }
}

impl<T> Drop for Stocked<T> {
    fn drop(&mut self) {
        // SAFETY: the value is there, and is not used again.
        unsafe { ptr::drop_in_place(self.value.as_ptr()) };
        let offset = self.value.addr().get() % PAGE_BYTES;
        // SAFETY: the page that the value lies in begins so many bytes before it.
        let mut head = unsafe { self.value.cast::<u8>().sub(offset) }.cast::<Head<T>>();
        let place = (offset - Stock::<T>::FIRST) / size_of::<T>();
        // SAFETY: as in `Stock::put`; the value's own drop is over.
        let page = unsafe { head.as_mut() };
        let stock = Rc::clone(&page.stock);
        if page.taken == Stock::<T>::FULL {
            stock.open.borrow_mut().push(head);
        }
        page.taken &= !(1 << place);
        if page.taken != 0 {
            return;
        }
        stock.empty.set(stock.empty.get() + 1);
        if stock.empty.get() > stock.empty_max.get() {
            let mut open = stock.open.borrow_mut();
            if let Some(position) = open.iter().rposition(|other| *other == head) {
                open.swap_remove(position);
                drop(open);
                // SAFETY: it has left the list, and its last value is gone.
                unsafe { Inner::release(head) };
            }
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Stocked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::{
        config::BufferPools,
        memory::budget::tests::{budget, plenty},
    };

    /// A value that counts how many of its kind there are.
    #[derive(Debug)]
    struct Counted {
        number: u64,
        alive: Rc<Cell<usize>>,
        _filler: [u8; 900],
    }

    impl Counted {
        fn new(number: u64, alive: &Rc<Cell<usize>>) -> Self {
            alive.set(alive.get() + 1);
            Counted { number, alive: Rc::clone(alive), _filler: [number as u8; 900] }
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.alive.set(self.alive.get() - 1);
        }
    }

    fn stock(empty_max: usize, share: &Rc<Share>) -> Stock<Counted> {
        let overflow = Overflow::new(BufferPools::default(), share.budget());
        Stock::new(Holder::Connections, 1 << 10, empty_max, share, &overflow)
    }

    #[test]
    fn values_lie_apart_and_are_dropped_once() {
        let (share, alive) = (plenty(), Rc::default());
        let stock = stock(0, &share);
        assert_eq!(Stock::<Counted>::PLACES, 4);
        let mut values: Vec<_> =
            (0..1000).map(|number| stock.put(Counted::new(number, &alive), Rank::Start).unwrap()).collect();
        assert_eq!(share.budget().used_bytes(), 250 * 4096);
        for (number, value) in values.iter_mut().enumerate() {
            assert_eq!(value.number, number as u64);
            assert!(value._filler.iter().all(|byte| *byte == number as u8));
        }
        assert_eq!(alive.get(), 1000);
        values.retain(|value| value.number % 4 == 0);
        assert_eq!((alive.get(), share.budget().used_bytes()), (250, 250 * 4096));
        drop(values);
        assert_eq!((alive.get(), share.budget().used_bytes()), (0, 0));
    }

    #[test]
    fn some_empty_pages_stay_for_a_while() {
        let (share, alive) = (plenty(), Rc::default());
        let stock = stock(2, &share);
        let values: Vec<_> =
            (0..16).map(|number| stock.put(Counted::new(number, &alive), Rank::Start).unwrap()).collect();
        drop(values);
        assert_eq!(share.budget().used_bytes(), 2 * 4096);
        let again = stock.put(Counted::new(0, &alive), Rank::Start).unwrap();
        assert_eq!(share.budget().used_bytes(), 2 * 4096);
        drop(again);
        let mut left = Vec::new();
        for _ in 0..4 {
            stock.decay();
            left.push(share.budget().used_bytes() / 4096);
        }
        assert_eq!(left, [2, 1, 0, 0]);
        assert!(stock.is_empty());
    }

    #[test]
    fn without_memory_there_is_no_place_and_the_value_is_dropped() {
        let (share, alive) = (Share::new(&budget(10 << 10, 1), 0), Rc::default());
        let stock = stock(0, &share);
        let put = || stock.put(Counted::new(0, &alive), Rank::Start);
        let mut values: Vec<_> = std::iter::from_fn(put).collect();
        assert_eq!((values.len(), alive.get()), (8, 8));
        values.pop();
        assert!(put().is_some());
    }

    #[test]
    fn a_value_outlives_the_stock() {
        let (share, alive) = (plenty(), Rc::default());
        let values: Vec<_> = {
            let stock = stock(4, &share);
            (0..5).map(|number| stock.put(Counted::new(number, &alive), Rank::Start).unwrap()).collect()
        };
        assert_eq!((values[4].number, share.budget().used_bytes()), (4, 2 * 4096));
        drop(values);
        assert_eq!((alive.get(), share.budget().used_bytes()), (0, 0));
    }

    #[test]
    fn random_use_loses_and_doubles_nothing() {
        let (share, alive) = (plenty(), Rc::default());
        let stock = stock(3, &share);
        let mut held = VecDeque::new();
        let mut random = 1_u64;
        for number in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            match random >> 61 {
                0..4 => held.push_back(stock.put(Counted::new(number, &alive), Rank::Start).unwrap()),
                4..7 if !held.is_empty() => {
                    let value = held.swap_remove_back((random >> 20) as usize % held.len()).unwrap();
                    assert!(value._filler.iter().all(|byte| *byte == value.number as u8));
                }
                _ => stock.decay(),
            }
            assert_eq!(alive.get(), held.len());
            let pages = share.budget().used_bytes() / 4096;
            assert!(pages as usize * 4 >= held.len());
        }
        held.clear();
        stock.keep_empty(0);
        assert_eq!((alive.get(), share.budget().used_bytes()), (0, 0));
    }
}
