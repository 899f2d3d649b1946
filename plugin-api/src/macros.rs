//! Exporting a plugin.

/// Exports a plugin: its header, its manifest section and a test that the manifest is current.
///
/// The manifest is `plugin.json` beside `Cargo.toml`. Start with a file that holds `{}` and run the plugin's tests with
/// `GRAFT_UPDATE_MANIFEST=1` to have it written.
///
/// `export_plugin! { id: "lora", methods: [Lora], objectives: [] }`
#[macro_export]
macro_rules! export_plugin {
    (id: $id:expr, methods: [$($method:ty),* $(,)?], objectives: [$($objective:ty),* $(,)?] $(,)?) => {
        static GRAFT_PLUGIN: $crate::export::Plugin = $crate::export::Plugin {
            id: $id,
            version: ::std::env!("CARGO_PKG_VERSION"),
            licence: ::std::env!("CARGO_PKG_LICENSE"),
            requires: &[$crate::abi::GRAPH_EXTENSION],
            entries: &[
                $($crate::export::Entry::method::<$method>(),)*
                $($crate::export::Entry::objective::<$objective>(),)*
            ],
        };

        $crate::__export_manifest!(
            ::std::include_bytes!(::std::concat!(::std::env!("CARGO_MANIFEST_DIR"), "/plugin.json"))
        );
        $crate::__export_header!(GRAFT_PLUGIN);

        #[cfg(test)]
        mod graft_manifest {
            #[test]
            fn the_manifest_is_what_the_code_says() {
                let path = ::std::concat!(::std::env!("CARGO_MANIFEST_DIR"), "/plugin.json");
                $crate::manifest::check_file(&super::GRAFT_PLUGIN, ::std::path::Path::new(path));
            }
        }
    };
}

/// Puts bytes into the manifest section.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_manifest {
    ($bytes:expr) => {
        #[used]
        #[unsafe(link_section = ".graft.manifest")]
        static GRAFT_MANIFEST: [u8; $bytes.len()] = *$bytes;
    };
}

/// The symbol that `abi_stable` looks up, as a literal; a test holds it equal to [`crate::abi::HEADER_SYMBOL`].
#[doc(hidden)]
#[macro_export]
macro_rules! __header_symbol {
    () => {
        "_1as_0lib_1header_0root_bmodule_bloader"
    };
}

/// Exports the header of a plugin, as `abi_stable::export_root_module` does, but without the author depending on it.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_header {
    ($plugin:ident) => {
        extern "C" fn graft_call(
            op: u32,
            instance: u64,
            request: $crate::abi_stable::std_types::RSlice<'_, u8>,
            host: &$crate::abi::HostCallbacks,
        ) -> $crate::abi::Reply {
            $crate::export::entry(&$plugin, op, instance, request.as_slice(), host)
        }

        fn graft_module() -> $crate::abi::PluginModuleRef {
            $crate::abi_stable::prefix_type::PrefixTypeTrait::leak_into_prefix($crate::abi::PluginModule {
                api_major: $crate::abi::API_VERSION.0,
                api_minor: $crate::abi::API_VERSION.1,
                name: $plugin.id.into(),
                call: graft_call,
            })
        }

        extern "C" fn graft_module_erased() -> $crate::abi_stable::library::RootModuleResult {
            $crate::abi_stable::library::__call_root_module_loader(graft_module)
        }

        #[unsafe(export_name = $crate::__header_symbol!())]
        static GRAFT_HEADER: $crate::abi_stable::library::LibHeader = {
            // SAFETY: the constructor erases exactly the module type that it is registered for.
            unsafe {
                $crate::abi_stable::library::LibHeader::from_constructor::<$crate::abi::PluginModuleRef>(
                    graft_module_erased,
                    $crate::abi_stable::library::CheckTypeLayout::Yes,
                )
            }
        };
    };
}
