mod clients;
mod loading;
mod names;
