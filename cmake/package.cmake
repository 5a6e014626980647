# SPDX-License-Identifier: Apache-2.0
# The Debian package: `cpack -G DEB` in a build directory, or tools/debian.
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE ${PROJECT_SOURCE_DIR}/NOTICE DESTINATION share/doc/sallyport COMPONENT package)
install(FILES ${PROJECT_SOURCE_DIR}/deploy/debian/copyright DESTINATION share/doc/sallyport COMPONENT package)
install(FILES ${PROJECT_SOURCE_DIR}/deploy/debian/sallyport.service DESTINATION /usr/lib/systemd/system COMPONENT package)
install(FILES ${PROJECT_SOURCE_DIR}/deploy/debian/standalone.yaml DESTINATION /etc/sallyport COMPONENT package
  PERMISSIONS OWNER_READ OWNER_WRITE GROUP_READ)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME sallyport)
set(CPACK_PACKAGE_VENDOR sallyport)
set(CPACK_PACKAGE_CONTACT "sallyport maintainers <security@sallyport.dev>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "authentication gateway for MCP servers")
set(CPACK_PACKAGE_DESCRIPTION "Stands in front of MCP servers: single sign-on for the people who call, and for each server the credential that
it wants. This package runs everything in one process, with its data in /var/lib/sallyport; the programs of the services are there, too.")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEB_COMPONENT_INSTALL OFF)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION net)
# The packages of the libraries that the programs are linked with, at the versions of the release it is built on.
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_DEPENDS "adduser, ca-certificates")
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS systemd)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA
  ${PROJECT_SOURCE_DIR}/deploy/debian/conffiles
  ${PROJECT_SOURCE_DIR}/deploy/debian/postinst
  ${PROJECT_SOURCE_DIR}/deploy/debian/prerm
  ${PROJECT_SOURCE_DIR}/deploy/debian/postrm)
include(CPack)
